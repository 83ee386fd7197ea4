"""Streamlit: the state is in st.session_state, which one instance has in memory."""

import json
import os

import streamlit as st

state = st.session_state
state.setdefault("user", st.query_params.get("user"))
state.setdefault("count", 0)
if st.button("count"):
    state.count += 1
st.text(json.dumps({"instance": os.environ["INSTANCE"], "user": state.user, "count": state.count}))

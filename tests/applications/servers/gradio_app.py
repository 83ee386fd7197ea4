"""Gradio: the state of a page is in gr.State, which one instance has in memory."""

import json
import sys

import gradio as gr

port, instance = int(sys.argv[1]), sys.argv[2]


def text(state):
    return json.dumps({"instance": instance, **state})


def load(request: gr.Request):
    state = {"user": request.query_params.get("user"), "count": 0}
    return state, f"<p>{text(state)}</p>"


def press(state):
    state = {"user": state.get("user"), "count": state.get("count", 0) + 1}
    return state, f"<p>{text(state)}</p>"


with gr.Blocks(analytics_enabled=False) as demo:
    held, shown, button = gr.State({}), gr.HTML(), gr.Button("count")
    demo.load(load, None, [held, shown])
    button.click(press, held, [held, shown])

demo.launch(server_name="127.0.0.1", server_port=port, share=False, quiet=True)

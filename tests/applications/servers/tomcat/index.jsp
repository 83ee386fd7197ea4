<%@ page contentType="application/json" pageEncoding="UTF-8" session="false" %><%@ include file="state.jspf" %>

package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"

	"stampede/internal/problem"
)

// answerError answers a request to which no server has given a whole answer, with a problem document as edge and shop
// send them.
func answerError(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil && errors.Is(err, context.Canceled) {
		return // the client has left
	}
	process, name := r.URL.Host, problem.NewRequestID(nil)
	id := string(name[:])
	status, code, title, detail := http.StatusBadGateway, "bad_gateway", "The "+process+" has given no answer.",
		"It may have seen the request."
	timeout, ok := errors.AsType[net.Error](err)
	late := ok && timeout.Timeout()
	switch _, bad := errors.AsType[clientError](err); {
	case bad && late:
		status, code, title, detail = told(problem.RequestTimeout)
	case bad:
		status, code, title, detail = told(problem.MalformedRequest)
	case late:
		status, code = http.StatusGatewayTimeout, "gateway_timeout"
	case errors.Is(err, errAway):
		detail = "It cannot be reached, and has not seen the request."
	}
	if status >= http.StatusInternalServerError {
		slog.Warn("front: no answer from "+process, "request_id", id, "error", err)
	}

	document := map[string]any{"status": status, "title": title, "code": code, "request_id": id}
	if detail != "" {
		document["detail"] = detail
	}
	body, err := json.Marshal(document)
	if err != nil {
		panic(fmt.Sprintf("front: encode problem %s: %v", code, err))
	}
	w.Header().Set("Content-Type", problem.MediaType)
	w.Header().Set(problem.RequestIDHeader, id)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// told is what edge and shop say of a problem that is the client's.
func told(c problem.Code) (status int, code, title, detail string) {
	return c.Status(), string(c), c.Title(), ""
}

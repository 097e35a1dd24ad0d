package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
)

// answerError answers a request to which no server has given a whole answer, with a problem document as edge and shop
// send them.
func answerError(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil && errors.Is(err, context.Canceled) {
		return // the client has left
	}
	process, id := r.URL.Host, fmt.Sprintf("%016x%016x", rand.Uint64(), rand.Uint64())
	status, code, title, detail := http.StatusBadGateway, "bad_gateway", "The "+process+" has given no answer.",
		"It may have seen the request."
	timeout, ok := errors.AsType[net.Error](err)
	late := ok && timeout.Timeout()
	switch _, bad := errors.AsType[clientError](err); {
	case bad && late:
		status, code, title, detail = http.StatusRequestTimeout, "request_timeout",
			"The request took too long to arrive.", ""
	case bad:
		status, code, title, detail = http.StatusBadRequest, "malformed_request", "The request cannot be read.", ""
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
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Stampede-Request-Id", id)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

package pay

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// call is a request to a provider.
type call struct {
	request *http.Request
	body    []byte
	form    url.Values // of the body, if it is one, and of the address
	refuse  bool       // the provider refuses it, though nothing is wrong with it
	racing  bool       // the buyer pays just before
}

// answer is a provider's answer, with what it tells beside it.
type answer struct {
	status      int
	contentType string
	header      map[string]string
	body        string
	notices     []*notice
}

// asJSON is an answer of JSON.
func asJSON(status int, body any) answer {
	text, err := json.Marshal(body)
	if err != nil {
		panic(fmt.Sprintf("pay: an answer that is no JSON: %v", err)) // all are made of maps and strings
	}
	return answer{status: status, contentType: "application/json", body: string(text)}
}

// object is an object of JSON that is written.
type object = map[string]any

// api serves an operation of a provider: do is called with the books locked, and the faults come around it.
func (s *Server) api(provider, operation string, do func(*call) answer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if c := s.read(w, r, provider); c != nil {
			s.run(w, c, provider, operation, do)
		}
	}
}

// read reads a request, unless the provider is down, or the request is too large.
func (s *Server) read(w http.ResponseWriter, r *http.Request, provider string) *call {
	if _, down := s.faults.roll(Down, provider, ""); down {
		panic(http.ErrAbortHandler)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, "the request cannot be read, or is too large", http.StatusRequestEntityTooLarge)
		return nil
	}
	form := r.URL.Query()
	if posted, err := url.ParseQuery(string(body)); err == nil {
		for name, values := range posted {
			form[name] = append(form[name], values...)
		}
	}
	return &call{request: r, body: body, form: form}
}

func (s *Server) run(w http.ResponseWriter, c *call, provider, operation string, do func(*call) answer) {
	ctx := c.request.Context()
	if delay, slow := s.faults.roll(Slow, provider, operation); slow {
		sleep(ctx, delay)
	}
	if _, lost := s.faults.roll(RequestLost, provider, operation); lost {
		cut(w)
	}
	if _, trouble := s.faults.roll(Trouble, provider, operation); trouble {
		s.protocols[provider].trouble(operation).write(w)
		return
	}
	switch operation {
	case opCreate, opCapture, opRefund:
		_, c.refuse = s.faults.roll(Refused, provider, operation)
	}
	if operation == opClose || operation == opQuery && provider == ECPay {
		_, c.racing = s.faults.roll(PaidWhileClosing, provider, operation)
	}

	given := s.books.locked(func() answer { return do(c) })
	if len(given.notices) > 0 {
		if _, first := s.faults.roll(NoticeFirst, provider, operation); first {
			s.notices.sendNow(ctx, given.notices)
			given.notices = nil
		}
	}
	// Whatever becomes of the answer, what was done is told.
	defer s.notices.send(given.notices)
	if _, lost := s.faults.roll(AnswerLost, provider, operation); lost {
		cut(w)
	}
	given.write(w)
	_ = http.NewResponseController(w).Flush() // so that the notices come after it
}

func (a answer) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", a.contentType)
	w.Header().Set("Cache-Control", "no-store")
	for name, value := range a.header {
		w.Header().Set(name, value)
	}
	w.WriteHeader(a.status)
	_, _ = io.WriteString(w, a.body)
}

// cut ends the connection after the beginning of an answer. Without one Go's client would repeat some requests by
// itself, and hide the fault from its caller.
func cut(w http.ResponseWriter) {
	w.Header().Set("Content-Length", "1000")
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// sleep waits, but not for longer than ctx lasts.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

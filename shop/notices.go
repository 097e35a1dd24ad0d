package main

import (
	"errors"
	"io"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"stampede/internal/payment"
	"stampede/internal/problem"
	"stampede/internal/telemetry"
	"stampede/internal/till"
)

// maxNotices bounds the notices that are verified and recorded at the same time. What comes beyond is told to come
// again, as every provider does.
const maxNotices = 64

// notices are the notices of providers of payments.
type notices struct {
	free    chan struct{}
	counted *prometheus.CounterVec
}

// Outcomes of notices that are not recorded.
const (
	noticeForged      = "forged"      // not signed by the provider
	noticeUnknown     = "unverified"  // whether it is could not be found out
	noticeUnavailable = "unavailable" // it could not be recorded, or there were too many
)

func newNotices(reg prometheus.Registerer) notices {
	n := notices{
		free:    make(chan struct{}, maxNotices),
		counted: telemetry.PaymentEvents(),
	}
	reg.MustRegister(n.counted)
	return n
}

// count counts what became of something that a provider has told.
func (n notices) count(provider, outcome string) { n.counted.WithLabelValues(provider, outcome).Inc() }

// declare sees to it that what alerts compare is there before it happens the first time.
func (n notices) declare(providers []payment.Provider) {
	for _, p := range providers {
		for _, outcome := range []string{
			noticeForged, noticeUnknown, noticeUnavailable, string(till.OutcomeMismatch), string(till.OutcomeRefund),
			string(till.OutcomeCompleted),
		} {
			n.counted.WithLabelValues(p.Name(), outcome)
		}
	}
}

// postNotice takes a notice of a provider of payments, and answers in the provider's own words. What is not signed by
// it changes nothing, and nothing of it is kept.
func (s *Shop) postNotice(w http.ResponseWriter, r *http.Request) error {
	by, ok := s.till.Provider(r.PathValue("provider"))
	if !ok {
		return problem.New(problem.NotFound, "There is no such provider of payments.")
	}
	select {
	case s.notices.free <- struct{}{}:
		defer func() { <-s.notices.free }()
	default:
		s.notices.count(by.Name(), noticeUnavailable)
		return problem.New(problem.PaymentsUnavailable, "Come again.")
	}

	body, _ := io.ReadAll(r.Body) // which has arrived
	ctx, cancel := s.work(r)
	defer cancel()
	n, err := by.ReadNotice(ctx, r.Header, body)
	switch {
	case errors.Is(err, payment.ErrForged):
		s.notices.count(by.Name(), noticeForged)
		slog.Debug("payment: a notice is refused", "provider", by.Name(), "error", err, logID(w))
		return sendAnswer(w, by.Answer(false))
	case err != nil:
		s.notices.count(by.Name(), noticeUnknown)
		slog.Warn("payment: a notice could not be verified; it is refused, and the provider comes again", "provider",
			by.Name(), "error", err, logID(w))
		return problem.New(problem.PaymentsUnavailable, "Come again.")
	}

	_, err = s.till.Record(ctx, by.Name(), n, till.FromNotice, body)
	if err == nil && n.Kind == payment.Approved {
		err = s.till.Capture(ctx, n.Attempt)
		if errors.Is(err, payment.ErrUnknown) {
			err = nil // whoever sweeps the attempt goes on
		}
	}
	if err != nil {
		s.notices.count(by.Name(), noticeUnavailable)
		return &unavailable{problem.New(problem.PaymentsUnavailable, "Come again."), err}
	}
	return sendAnswer(w, by.Answer(true))
}

// sendAnswer answers in the words of a provider, byte for byte.
func sendAnswer(w http.ResponseWriter, a payment.Answer) error {
	w.Header().Set("Content-Type", a.ContentType)
	w.WriteHeader(a.Status)
	_, _ = io.WriteString(w, a.Body)
	return nil
}

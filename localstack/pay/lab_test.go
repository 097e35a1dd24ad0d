package pay_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"stampede/localstack/pay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// client follows no redirect, and keeps no connection.
var client = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Timeout:       20 * time.Second,
}

// reply is what was answered.
type reply struct {
	status int
	header http.Header
	body   string
}

// lab is a server with a shop that it tells.
type lab struct {
	*testing.T
	server *pay.Server
	env    map[string]string
	shop   *shop
}

func start(t *testing.T) *lab {
	t.Helper()
	s := newShop(t)
	server, err := pay.Start(pay.Options{
		Webhooks: map[string]string{pay.PayPal: s.URL + "/paypal", pay.Stripe: s.URL + "/stripe"},
		Pauses:   []time.Duration{time.Millisecond, time.Millisecond, time.Millisecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	l := &lab{T: t, server: server, env: map[string]string{}, shop: s}
	for _, pair := range server.Env() {
		name, value, _ := strings.Cut(pair, "=")
		l.env[name] = value
	}
	return l
}

// do makes a request and returns an error if it was not answered.
func do(method, address string, header http.Header, body string) (reply, error) {
	request, err := http.NewRequest(method, address, strings.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	request.Header = header
	response, err := client.Do(request)
	if err != nil {
		return reply{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return reply{response.StatusCode, response.Header, string(text)}, err
}

func (l *lab) do(method, address string, header http.Header, body string) reply {
	l.Helper()
	r, err := do(method, address, header, body)
	if err != nil {
		l.Fatalf("%s %s: %v", method, address, err)
	}
	return r
}

func (l *lab) postForm(address string, form url.Values) reply {
	l.Helper()
	return l.do("POST", address, http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, form.Encode())
}

// admin asks for something under /admin, which must be done.
func (l *lab) admin(path, body string) string {
	l.Helper()
	r := l.do("POST", l.server.URL()+"/admin/"+path, http.Header{"Content-Type": {"application/json"}}, body)
	if r.status != http.StatusOK {
		l.Fatalf("%s %s: status %d: %s", path, body, r.status, r.body)
	}
	return r.body
}

// buyer acts as the buyer of an attempt.
func (l *lab) buyer(act, provider, number string) {
	l.Helper()
	l.admin(act, fmt.Sprintf(`{"provider":%q,"number":%q}`, provider, number))
}

// fault sets one fault.
func (l *lab) fault(f string) {
	l.Helper()
	l.admin("faults", `{"seed":1,"faults":[`+f+`]}`)
}

// happened is how often a fault has happened.
func (l *lab) happened(what string, times int) {
	l.Helper()
	if got := l.server.Happened()[what]; got != times {
		l.Errorf("%s happened %d times, want %d: %v", what, got, times, l.server.Happened())
	}
}

// books are what GET /admin/books shows, in one line: payments, then refunds.
func (l *lab) books() string {
	l.Helper()
	var books pay.Books
	r := l.do("GET", l.server.URL()+"/admin/books", nil, "")
	if err := json.Unmarshal([]byte(r.body), &books); err != nil {
		l.Fatalf("books: %v: %s", err, r.body)
	}
	var text []string
	for _, p := range books.Payments {
		if p.PaidAt.IsZero() || p.Reference == "" {
			l.Errorf("a payment without a time or a reference: %+v", p)
		}
		text = append(text, fmt.Sprintf("%s paid %s %d %s", p.Provider, p.Number, p.Amount, p.Currency))
	}
	for _, r := range books.Refunds {
		text = append(text, fmt.Sprintf("refund %s of %s %d by %s", r.Number, r.Of, r.Amount, r.By))
	}
	return strings.Join(text, "; ")
}

func (l *lab) wantBooks(want string) {
	l.Helper()
	if got := l.books(); got != want {
		l.Errorf("the books say %q, want %q", got, want)
	}
}

// eventually waits until something is true.
func (l *lab) eventually(what string, isTrue func() bool) {
	l.Helper()
	for deadline := time.Now().Add(10 * time.Second); !isTrue(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			l.Fatalf("%s: not within 10 seconds; deliveries: %+v", what, l.server.Deliveries())
		}
	}
}

// quiet waits until all notices are acknowledged or given up.
func (l *lab) quiet() pay.Counts {
	l.Helper()
	l.eventually("no pending notice", func() bool { return l.server.Counts().Pending == 0 })
	return l.server.Counts()
}

// told is a notice that the shop was told.
type told struct {
	path   string
	header http.Header
	body   []byte
}

func (n told) form() url.Values {
	form, _ := url.ParseQuery(string(n.body))
	return form
}

// event is the type of an event of PayPal or Stripe.
func (n told) event() string {
	var event struct {
		EventType string `json:"event_type"`
		Type      string `json:"type"`
	}
	_ = json.Unmarshal(n.body, &event)
	return event.EventType + event.Type
}

// shop takes notices, at a path for each provider.
type shop struct {
	*httptest.Server
	mu     sync.Mutex
	all    []told
	refuse int          // so many are answered by something else than the acknowledgement
	before func(n told) // is called before a notice is answered
}

func newShop(t *testing.T) *shop {
	s := &shop{}
	acknowledgements := map[string]string{"/ecpay": "1|OK", "/ecpay-issued": "1|OK", "/alipay": "success"}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		n := told{r.URL.Path, r.Header, bytes.Clone(body)}
		s.mu.Lock()
		s.all = append(s.all, n)
		refused := s.refuse > 0
		if refused {
			s.refuse--
		}
		before := s.before
		s.mu.Unlock()
		if before != nil {
			before(n)
		}
		switch {
		case refused && acknowledgements[n.path] == "":
			w.WriteHeader(http.StatusServiceUnavailable)
		case refused:
			_, _ = io.WriteString(w, acknowledgements[n.path]+"\n") // a byte too much
		default:
			_, _ = io.WriteString(w, acknowledgements[n.path])
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *shop) told() []told {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]told{}, s.all...)
}

// wait returns the notices when there are so many.
func (l *lab) wait(n int) []told {
	l.Helper()
	l.eventually(fmt.Sprintf("%d notices", n), func() bool { return len(l.shop.told()) >= n })
	return l.shop.told()
}

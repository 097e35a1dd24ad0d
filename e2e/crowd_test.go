package e2e

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"stampede/internal/contract"
)

// client is for many requests to one host at a time.
var client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 256}}

// api is the contract that every answer is held against.
var api = sync.OnceValue(func() *contract.Contract {
	document, err := os.ReadFile("../internal/apidoc/openapi.gen.yaml")
	if err != nil {
		panic(err)
	}
	c, err := contract.Load(document)
	if err != nil {
		panic(err)
	}
	return c
})

// request sends one request and decodes the JSON of its answer. Fields alternates names and values of further headers.
func request(t testing.TB, method, url, token, body string, fields ...string) (int, map[string]any) {
	t.Helper()
	status, decoded, err := tryRequest(t, method, url, token, body, fields...)
	if err != nil {
		t.Fatal(err)
	}
	return status, decoded
}

// tryRequest is request for who has a use for the error. An answer that is not in the contract fails the test all the
// same.
func tryRequest(t testing.TB, method, url, token, body string, fields ...string) (int, map[string]any, error) {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	for i := 0; i < len(fields); i += 2 {
		req.Header.Set(fields[i], fields[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, err
	}
	used.add(body)
	used.add(string(raw))
	if err := api().Check(method, req.URL.EscapedPath(), resp.StatusCode, resp.Header, raw); err != nil {
		t.Error(err)
	}
	var decoded map[string]any
	if err := json.Unmarshal(raw, &decoded); err != nil {
		return 0, nil, fmt.Errorf("%s %s answers %s: %q", method, url, resp.Status, raw)
	}
	return resp.StatusCode, decoded, nil
}

// token makes an access token as anybody could who has the secret, by the book (RFC 7515) and without
// Stampede's code.
func (s *system) token(userID int) string {
	var secret string
	for _, variable := range s.env {
		if value, ok := strings.CutPrefix(variable, "JWT_SECRET="); ok {
			secret = value
		}
	}
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." +
		encode(fmt.Appendf(nil, `{"sub":"%d","exp":%d}`, userID, time.Now().Add(time.Hour).Unix()))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(signed))
	return signed + "." + encode(mac.Sum(nil))
}

// crowd keeps its own record of what the buyers were told.
type crowd struct {
	mu      sync.Mutex
	orders  map[string]int // order id → user, of each 202
	refused map[string]int // problem code → times
	errors  []error        // requests without an answer
}

// rush sends buyers first to last at a rate, each one order of one unit of product 1, to the edge that
// is the system's at the time, and returns when all have an answer or ctx has ended.
func (s *system) rush(ctx context.Context, c *crowd, first, last int, perSecond float64) {
	var buyers sync.WaitGroup
	start := time.Now()
	for i := first; i <= last && ctx.Err() == nil; i++ {
		time.Sleep(time.Until(start.Add(time.Duration(float64(i-first) / perSecond * float64(time.Second)))))
		url := s.url
		buyers.Go(func() {
			status, body, err := tryRequest(s.t, "POST", url+"/api/orders", s.token(i), `{"product_id":1,"quantity":1}`)
			c.mu.Lock()
			defer c.mu.Unlock()
			switch {
			case err != nil:
				c.errors = append(c.errors, err)
			case status == http.StatusAccepted:
				id, _ := body["order_id"].(string)
				c.orders[id] = i
			default:
				code, _ := body["code"].(string)
				c.refused[code]++
			}
		})
	}
	buyers.Wait()
}

func newCrowd() *crowd { return &crowd{orders: map[string]int{}, refused: map[string]int{}} }

func (c *crowd) accepted() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.orders)
}

package paypal

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	_ "embed"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/big"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"stampede/internal/payment"
)

// An event of PayPal's sandbox and the certificate that it was signed with, which PayPal has published with its SDK for
// Java.
var (
	//go:embed testdata/event.json
	published []byte
	//go:embed testdata/sandbox.crt
	sandboxCert []byte
)

// transport answers without a network.
type transport func(*http.Request) (int, []byte)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) {
	status, body := f(r)
	if status == 0 {
		return nil, errors.New("no network")
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body))}, nil
}

func serving(body []byte) *http.Client {
	return &http.Client{Transport: transport(func(*http.Request) (int, []byte) { return http.StatusOK, body })}
}

func headers(id, at, signature, cert string) http.Header {
	h := http.Header{}
	h.Set("PAYPAL-TRANSMISSION-ID", id)
	h.Set("PAYPAL-TRANSMISSION-TIME", at)
	h.Set("PAYPAL-TRANSMISSION-SIG", signature)
	h.Set("PAYPAL-CERT-URL", cert)
	h.Set("PAYPAL-AUTH-ALGO", "SHA256withRSA")
	return h
}

const (
	certs        = "/v1/notifications/certs/"
	sandboxCerts = "https://api.sandbox.paypal.com" + certs
)

// TestPublishedEvent: what PayPal's own library takes for valid, with a clock of that time.
func TestPublishedEvent(t *testing.T) {
	block, _ := pem.Decode(sandboxCert)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert) // who signed it is not published with it
	w := &Webhooks{
		ID: "0FV983392A0531201", Sandbox: true, Client: serving(sandboxCert), Roots: roots,
		now: func() time.Time { return time.Date(2019, 8, 29, 10, 50, 0, 0, time.UTC) },
	}
	header := headers("afa30d40-ca4a-11e9-ab68-7d4e2605c70c", "2019-08-29T10:49:33Z",
		"K7DF5+hOyGS6v0xTZ9PkEO+BFNQmpryxw2hFlXbHgmxpu+883ldEC9HcL6ccEmB8sfy80y/Q3qcZZL1MR8Qi0e1ysylVj/yROgKK6zBsQPoN"+
			"mgXC8yTiNoAjULuhk5Aoau0Itk3nrkgAfji1zvADlErMFM9VZe2nDvhM3nDMLjCi/K5fRjWp3eGo6Nx17GX/WIEibeKDyS+YdJMex3i+"+
			"KO4aWmm9zznC/FJ5Y/ntd0MxOJNrM0r0f3y7c3e3sO5pB3oPgN6KzKVS5P6AWHqtS8acD3DjgCKZ1uqKz7q954G1aBz2/m0wRGOFFsv0"+
			"/D3FE2uIheRRmoQtVSOAX7Aupg==", sandboxCerts+"CERT-360caa42-fca2a594-1d93a270")
	if sum := crc32.ChecksumIEEE(published); len(published) != 3241 || sum != 3674300368 {
		t.Fatalf("the event has %d bytes and the sum %d", len(published), sum)
	}
	if err := w.Verify(t.Context(), header, published); err != nil {
		t.Error(err)
	}
	longer := append(published[:len(published):len(published)], '\n')
	if err := w.Verify(t.Context(), header, longer); !errors.Is(err, payment.ErrForged) {
		t.Errorf("with a byte more: error %v", err)
	}
	w.ID = "0FV983392A0531202"
	if err := w.Verify(t.Context(), header, published); !errors.Is(err, payment.ErrForged) {
		t.Errorf("of another webhook: error %v", err)
	}
}

// authority signs certificates, and webhooks by one of them.
type authority struct {
	root  *x509.Certificate
	key   *rsa.PrivateKey // of the certificate
	chain []byte
}

func newAuthority(t *testing.T, name string) authority {
	t.Helper()
	rootKey, key := newKey(t), newKey(t)
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(10 * time.Minute),
	}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, &rootKey.PublicKey, rootKey)
	if err != nil {
		t.Fatal(err)
	}
	if root, err = x509.ParseCertificate(rootDER); err != nil {
		t.Fatal(err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, &key.PublicKey, rootKey)
	if err != nil {
		t.Fatal(err)
	}
	return authority{root, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leafDER})}
}

func newKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a authority) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.root)
	return pool
}

func (a authority) post(t *testing.T, id, body string) http.Header {
	t.Helper()
	sum := sha256.Sum256(fmt.Appendf(nil, "t1|2026-11-28T10:00:00Z|%s|%d", id, crc32.ChecksumIEEE([]byte(body))))
	signature, err := rsa.SignPKCS1v15(rand.Reader, a.key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return headers("t1", "2026-11-28T10:00:00Z", base64.StdEncoding.EncodeToString(signature), sandboxCerts+"C1")
}

const sandboxName = "messageverificationcerts.sandbox.paypal.com"

// TestCertificateIsFetchedOnce, until it is over.
func TestCertificateIsFetchedOnce(t *testing.T) {
	a := newAuthority(t, sandboxName)
	var fetched atomic.Int32
	client := &http.Client{Transport: transport(func(*http.Request) (int, []byte) {
		fetched.Add(1)
		return http.StatusOK, a.chain
	})}
	clock := time.Now()
	w := &Webhooks{ID: "W1", Sandbox: true, Client: client, Roots: a.roots(), now: func() time.Time { return clock }}
	for range 3 {
		if err := w.Verify(t.Context(), a.post(t, "W1", "{}"), []byte("{}")); err != nil {
			t.Error(err)
		}
	}
	clock = clock.Add(11 * time.Minute)
	if err := w.Verify(t.Context(), a.post(t, "W1", "{}"), []byte("{}")); !errors.Is(err, payment.ErrForged) {
		t.Errorf("by a certificate that is over: error %v", err)
	}
	if n := fetched.Load(); n != 2 {
		t.Errorf("fetched %d times", n)
	}
}

func TestVerifyRefuses(t *testing.T) {
	a, other := newAuthority(t, sandboxName), newAuthority(t, sandboxName)
	live, stranger := newAuthority(t, "messageverificationcerts.paypal.com"), newAuthority(t, "paypal.com.example")
	w := func(a authority) *Webhooks {
		return &Webhooks{ID: "W1", Sandbox: true, Client: serving(a.chain), Roots: a.roots()}
	}
	with := func(name string, values ...string) http.Header {
		h := a.post(t, "W1", "{}")
		h.Del(name)
		for _, value := range values {
			h.Add(name, value)
		}
		return h
	}
	untrusted := w(a)
	untrusted.Roots = other.roots()
	for what, test := range map[string]struct {
		w      *Webhooks
		header http.Header
		body   string
	}{
		"another body":                {w(a), a.post(t, "W1", "{}"), "[]"},
		"another webhook":             {w(a), a.post(t, "W2", "{}"), "{}"},
		"another key":                 {w(a), other.post(t, "W1", "{}"), "{}"},
		"nobody's certificate":        {untrusted, a.post(t, "W1", "{}"), "{}"},
		"live in the sandbox":         {w(live), live.post(t, "W1", "{}"), "{}"},
		"a certificate of a stranger": {w(stranger), stranger.post(t, "W1", "{}"), "{}"},
		"no signature":                {w(a), with(headerSig), "{}"},
		"two signatures":              {w(a), with(headerSig, "x", "y"), "{}"},
		"no base64":                   {w(a), with(headerSig, "?"), "{}"},
		"no method":                   {w(a), with(headerMethod, "none"), "{}"},
		"no certificate":              {w(a), with(headerCert), "{}"},
		"an empty chain":              {w(authority{root: a.root}), a.post(t, "W1", "{}"), "{}"},
		"plain HTTP":                  {w(a), with(headerCert, "http"+sandboxCerts[5:]+"C1"), "{}"},
		"another host":                {w(a), with(headerCert, "https://api.sandbox.paypal.com.x"+certs+"C1"), "{}"},
		"a host of the live system":   {w(a), with(headerCert, "https://api.paypal.com"+certs+"C1"), "{}"},
		"a port":                      {w(a), with(headerCert, "https://api.sandbox.paypal.com:444"+certs+"C1"), "{}"},
		"somebody at the host":        {w(a), with(headerCert, "https://x@api.sandbox.paypal.com"+certs+"C1"), "{}"},
		"another path":                {w(a), with(headerCert, "https://api.sandbox.paypal.com/v1/x/C1"), "{}"},
		"a way out":                   {w(a), with(headerCert, sandboxCerts+"../../x"), "{}"},
		"an encoded way out":          {w(a), with(headerCert, sandboxCerts+"..%2f..%2fx"), "{}"},
		"a query":                     {w(a), with(headerCert, sandboxCerts+"C1?x"), "{}"},
	} {
		if err := test.w.Verify(t.Context(), test.header, []byte(test.body)); !errors.Is(err, payment.ErrForged) {
			t.Errorf("%s: error %v", what, err)
		}
	}
}

// TestNoCertificateNow: what is not known is not forged, and PayPal may repeat it.
func TestNoCertificateNow(t *testing.T) {
	a := newAuthority(t, sandboxName)
	status, fetched := http.StatusServiceUnavailable, 0
	client := &http.Client{Transport: transport(func(*http.Request) (int, []byte) {
		fetched++
		return status, a.chain
	})}
	clock := time.Now()
	w := &Webhooks{ID: "W1", Sandbox: true, Client: client, Roots: a.roots(), now: func() time.Time { return clock }}
	for _, status = range []int{http.StatusServiceUnavailable, 0, http.StatusFound} {
		if err := w.Verify(t.Context(), a.post(t, "W1", "{}"), []byte("{}")); !errors.Is(err, ErrNoCertificate) {
			t.Errorf("status %d: error %v", status, err)
		}
	}

	// A flood of addresses does not become a flood of requests to PayPal.
	status = http.StatusNotFound
	for i := range 3 * maxFetches {
		h := a.post(t, "W1", "{}")
		h.Set(headerCert, sandboxCerts+fmt.Sprint("C", i))
		if err := w.Verify(t.Context(), h, []byte("{}")); err == nil {
			t.Errorf("certificate %d is there", i)
		}
	}
	if fetched != maxFetches {
		t.Errorf("%d were fetched, want %d", fetched, maxFetches)
	}
	status, clock = http.StatusOK, clock.Add(fetchPeriod)
	if err := w.Verify(t.Context(), a.post(t, "W1", "{}"), []byte("{}")); err != nil {
		t.Errorf("when PayPal is back: error %v", err)
	}
}

// Package paypal speaks with PayPal.
//
// Source of its rules: PayPal's developer documentation, "integrate webhooks, verify the signature yourself".
package paypal

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/url"
	"path"
	"sync"
	"time"

	"stampede/internal/payment"
)

const (
	// certPath is where PayPal's certificates are on its own hosts.
	certPath = "/v1/notifications/certs/"
	// certTimeout bounds the fetching of a certificate; PayPal itself waits for some seconds.
	certTimeout = 5 * time.Second
	// maxCertBytes bounds a chain of certificates.
	maxCertBytes = 64 << 10
	// maxCerts bounds the certificates that are kept, and maxFetches how many are fetched in fetchPeriod: whoever posts
	// chooses what is asked for.
	maxCerts    = 16
	maxFetches  = 10
	fetchPeriod = time.Minute

	signatureMethod = "SHA256withRSA"
)

// The headers of a webhook.
const (
	headerID     = "Paypal-Transmission-Id"
	headerTime   = "Paypal-Transmission-Time"
	headerSig    = "Paypal-Transmission-Sig"
	headerCert   = "Paypal-Cert-Url"
	headerMethod = "Paypal-Auth-Algo"
)

// ErrNoCertificate: PayPal's certificate could not be had now, so that nothing is known of the notice. PayPal repeats
// it.
var ErrNoCertificate = fmt.Errorf("%w: the certificate of PayPal could not be fetched", payment.ErrUnknown)

// Webhooks verifies what PayPal posts, without asking PayPal each time. Set the fields before the first use.
type Webhooks struct {
	// ID is that of the webhook, as PayPal's console shows it. It is part of what is signed.
	ID string
	// Sandbox has PayPal's sandbox trusted, and nobody else.
	Sandbox bool
	// Client fetches certificates; nil is payment.Plain.
	Client *http.Client
	// Roots are who may have signed the certificates; nil are those of the system.
	Roots *x509.CertPool

	now func() time.Time // time.Now, but for tests

	mu      sync.Mutex
	certs   map[string]*x509.Certificate
	fetches []time.Time
}

// host is PayPal's, which has its certificates.
func (w *Webhooks) host() string {
	if w.Sandbox {
		return "api.sandbox.paypal.com"
	}
	return "api.paypal.com"
}

// certName is whom its certificates are for.
func (w *Webhooks) certName() string {
	if w.Sandbox {
		return "messageverificationcerts.sandbox.paypal.com"
	}
	return "messageverificationcerts.paypal.com"
}

// Verify reports whether PayPal has signed a webhook with these headers and this body, byte by byte as it came. The
// error is payment.ErrForged, or ErrNoCertificate if that is not known.
//
// The signature is over a CRC-32 of the body, which somebody who has a signed notice may find another body for: whoever
// is about to act on one asks PayPal for the capture itself.
func (w *Webhooks) Verify(ctx context.Context, header http.Header, body []byte) error {
	if err := checkHeader(header); err != nil {
		return err
	}
	if header.Get(headerMethod) != signatureMethod {
		return payment.Forged("it is signed by another method than %s", signatureMethod)
	}
	signature, err := base64.StdEncoding.DecodeString(header.Get(headerSig))
	if err != nil {
		return payment.Forged("its signature is not in base64")
	}
	cert, err := w.certificate(ctx, header.Get(headerCert))
	if err != nil {
		return err
	}
	key, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok {
		return payment.Forged("its certificate is not one for RSA")
	}

	text := fmt.Sprintf("%s|%s|%s|%d", header.Get(headerID), header.Get(headerTime), w.ID, crc32.ChecksumIEEE(body))
	sum := sha256.Sum256([]byte(text))
	if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature); err != nil {
		return payment.Forged("its signature does not fit")
	}
	return nil
}

// checkHeader holds a webhook to having each of its headers once. The error is payment.ErrForged.
func checkHeader(header http.Header) error {
	for _, name := range []string{headerID, headerTime, headerSig, headerCert, headerMethod} {
		if len(header.Values(name)) != 1 {
			return payment.Forged("it has no %s, or several", name)
		}
	}
	return nil
}

// certificate returns PayPal's certificate at an address, which the notice names.
func (w *Webhooks) certificate(ctx context.Context, address string) (*x509.Certificate, error) {
	u, err := url.Parse(address)
	if err != nil || path.Clean(u.Path) != u.Path || path.Dir(u.Path)+"/" != certPath ||
		*u != (url.URL{Scheme: "https", Host: w.host(), Path: u.Path}) {
		return nil, payment.Forged("its certificate is not at PayPal")
	}
	now := time.Now()
	if w.now != nil {
		now = w.now()
	}

	w.mu.Lock()
	cert := w.certs[address]
	w.mu.Unlock()
	if cert != nil && now.Before(cert.NotAfter) {
		return cert, nil
	}

	if !w.mayFetch(now) {
		return nil, fmt.Errorf("%w: too many were asked for", ErrNoCertificate)
	}
	chain, err := w.fetch(ctx, address)
	if err != nil {
		return nil, err
	}
	if cert, err = w.trusted(chain, now); err != nil {
		return nil, err
	}

	w.mu.Lock()
	defer w.mu.Unlock()
	if w.certs == nil || len(w.certs) >= maxCerts {
		w.certs = make(map[string]*x509.Certificate)
	}
	w.certs[address] = cert
	return cert, nil
}

// mayFetch reports whether another certificate may be fetched, and counts it.
func (w *Webhooks) mayFetch(now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.fetches) >= maxFetches {
		if now.Sub(w.fetches[0]) < fetchPeriod {
			return false
		}
		w.fetches = w.fetches[1:]
	}
	w.fetches = append(w.fetches, now)
	return true
}

func (w *Webhooks) fetch(ctx context.Context, address string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, certTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, payment.Forged("its certificate is not at PayPal")
	}
	client := w.Client
	if client == nil {
		client = payment.Plain
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoCertificate, err)
	}
	defer response.Body.Close()
	switch {
	case response.StatusCode == http.StatusNotFound:
		return nil, payment.Forged("PayPal has no such certificate")
	case response.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%w: status %d", ErrNoCertificate, response.StatusCode)
	}
	chain, err := io.ReadAll(io.LimitReader(response.Body, maxCertBytes+1))
	if err != nil || len(chain) > maxCertBytes {
		return nil, fmt.Errorf("%w: it cannot be read, or is larger than %d bytes", ErrNoCertificate, maxCertBytes)
	}
	return chain, nil
}

// trusted returns the first certificate of a chain, if it is PayPal's.
func (w *Webhooks) trusted(chain []byte, now time.Time) (*x509.Certificate, error) {
	var first *x509.Certificate
	between := x509.NewCertPool()
	for {
		var block *pem.Block
		if block, chain = pem.Decode(chain); block == nil {
			break
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, payment.Forged("its certificate cannot be read")
		}
		if first == nil {
			first = cert
		} else {
			between.AddCert(cert)
		}
	}
	if first == nil {
		return nil, payment.Forged("its certificate is none")
	}
	_, err := first.Verify(x509.VerifyOptions{
		DNSName: w.certName(), Roots: w.Roots, Intermediates: between, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, payment.Forged("its certificate is not PayPal's: %w", err)
	}
	return first, nil
}

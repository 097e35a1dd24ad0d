package pay

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"sync"
	"time"
)

// ECPay's stage, whose keys are public.
const (
	ecpayMerchant    = "3002607"
	ecpayHashKey     = "pwFHCqoQZGmho4w6"
	ecpayHashIV      = "EkRm7iFT261dpevs"
	ecpayCreditCheck = "59997889"
)

// What the others are given, of the same form as theirs.
const (
	paypalClientID  = "stand-in-client"
	paypalSecret    = "stand-in-secret"
	paypalWebhookID = "0FV983392A0531201"
	paypalMerchant  = "2BP3WP8PK6566"
	paypalCertName  = "messageverificationcerts.sandbox.paypal.com"
	paypalCertID    = "CERT-360caa42-fca2a594-00000001"

	alipayAppID  = "2014072300007148"
	alipaySeller = "2088102146225135"

	stripeSecret        = "sk_test_standin0000000000000000"
	stripeWebhookSecret = "whsec_standin00000000000000000000"
)

// keys are what is signed with. They are made once for a process, since that takes a while.
type keys struct {
	alipay   *rsa.PrivateKey // the provider's
	merchant *rsa.PrivateKey // the merchant's at Alipay
	paypal   *rsa.PrivateKey // of the certificate
	nobody   *rsa.PrivateKey // who forges
	root     []byte          // the certificate that PayPal's is signed with, in DER
	chain    []byte          // both, in PEM
}

var processKeys = sync.OnceValues(makeKeys)

func makeKeys() (*keys, error) {
	k := &keys{}
	var rootKey *rsa.PrivateKey
	for _, key := range []**rsa.PrivateKey{&k.alipay, &k.merchant, &k.paypal, &k.nobody, &rootKey} {
		var err error
		if *key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			return nil, err
		}
	}
	year := time.Now().AddDate(1, 0, 0)
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Stand-in for PayPal, root"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: year,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: paypalCertName}, DNSNames: []string{paypalCertName},
		KeyUsage:  x509.KeyUsageDigitalSignature,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: year,
	}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, &rootKey.PublicKey, rootKey)
	if err != nil {
		return nil, err
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, &k.paypal.PublicKey, rootKey)
	if err != nil {
		return nil, err
	}
	k.root = rootDER
	for _, der := range [][]byte{leafDER, rootDER} {
		k.chain = append(k.chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return k, nil
}

// signRSA is SHA256withRSA, PKCS #1 v1.5, in base64, as Alipay (RSA2) and PayPal sign.
func signRSA(key *rsa.PrivateKey, text []byte) string {
	sum := sha256.Sum256(text)
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		panic(fmt.Sprintf("pay: sign: %v", err)) // a key of 2,048 bits that was just made signs
	}
	return base64.StdEncoding.EncodeToString(signature)
}

func verifyRSA(key *rsa.PublicKey, text []byte, signature string) bool {
	plain, err := base64.StdEncoding.DecodeString(signature)
	sum := sha256.Sum256(text)
	return err == nil && rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], plain) == nil
}

// Env returns the variables ("NAME=value") that lead the client programs to this server. All are of one line: keys are
// base64 of DER, as Alipay's console shows them, and so is PAYPAL_CERT_ROOTS, the certificate that PayPal's is signed
// with.
func (s *Server) Env() []string {
	url := s.URL()
	private, err := x509.MarshalPKCS8PrivateKey(s.keys.merchant)
	if err != nil {
		panic(fmt.Sprintf("pay: %v", err)) // it is an RSA key
	}
	public, err := x509.MarshalPKIXPublicKey(&s.keys.alipay.PublicKey)
	if err != nil {
		panic(fmt.Sprintf("pay: %v", err))
	}
	text := base64.StdEncoding.EncodeToString
	return []string{
		"PAYMENT_TEST_MODE=true",

		"ECPAY_HOST=" + url + "/ecpay",
		"ECPAY_MERCHANT_ID=" + ecpayMerchant,
		"ECPAY_HASH_KEY=" + ecpayHashKey,
		"ECPAY_HASH_IV=" + ecpayHashIV,
		"ECPAY_CREDIT_CHECK_CODE=" + ecpayCreditCheck,

		"PAYPAL_HOST=" + url + "/paypal",
		"PAYPAL_CLIENT_ID=" + paypalClientID,
		"PAYPAL_SECRET=" + paypalSecret,
		"PAYPAL_WEBHOOK_ID=" + paypalWebhookID,
		"PAYPAL_MERCHANT_ID=" + paypalMerchant,
		"PAYPAL_VERIFY=postback",
		"PAYPAL_CERT_ROOTS=" + text(s.keys.root),

		"ALIPAY_GATEWAY=" + url + "/alipay/gateway.do",
		"ALIPAY_APP_ID=" + alipayAppID,
		"ALIPAY_PRIVATE_KEY=" + text(private),
		"ALIPAY_PUBLIC_KEY=" + text(public),
		"ALIPAY_SELLER_ID=" + alipaySeller,

		"STRIPE_HOST=" + url, // whose own library takes no address with a path
		"STRIPE_SECRET_KEY=" + stripeSecret,
		"STRIPE_WEBHOOK_SECRET=" + stripeWebhookSecret,
	}
}

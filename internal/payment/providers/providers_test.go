package providers

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"maps"
	"strings"
	"sync"
	"testing"

	"stampede/internal/config"
	"stampede/internal/payment"
	"stampede/internal/payment/alipay"
	"stampede/internal/payment/ecpay"
	"stampede/internal/payment/paypal"
	"stampede/internal/payment/stripe"
)

// keys are a pair for Alipay, as its console shows them.
var keys = sync.OnceValues(func() (private, public string) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		panic(err)
	}
	return base64.StdEncoding.EncodeToString(x509.MarshalPKCS1PrivateKey(key)), base64.StdEncoding.EncodeToString(der)
})

// live are the variables of all providers, as they are for real money.
func live() map[string]string {
	private, public := keys()
	return map[string]string{
		"ECPAY_MERCHANT_ID": "1234567", "ECPAY_HASH_KEY": "ecpaySecret1", "ECPAY_HASH_IV": "ecpaySecret2",
		"PAYPAL_CLIENT_ID": "app", "PAYPAL_SECRET": "paypalSecret1", "PAYPAL_WEBHOOK_ID": "W1",
		"PAYPAL_MERCHANT_ID": "M1",
		"ALIPAY_APP_ID":      "2014072300007148", "ALIPAY_PRIVATE_KEY": private, "ALIPAY_PUBLIC_KEY": public,
		"ALIPAY_SELLER_ID":  "2088102146225135",
		"STRIPE_SECRET_KEY": "sk_live_stripeSecret1", "STRIPE_WEBHOOK_SECRET": "whsec_stripeSecret2",
	}
}

// tests are the same for tests, in sandboxes.
func tests() map[string]string {
	m := live()
	maps.Copy(m, map[string]string{
		"PAYMENT_TEST_MODE": "true", "ECPAY_HOST": ecpay.Stage, "PAYPAL_HOST": paypal.Sandbox,
		"ALIPAY_GATEWAY": alipay.Sandbox, "STRIPE_SECRET_KEY": "sk_test_stripeSecret1",
	})
	return m
}

func from(m map[string]string) (Set, error) {
	return FromEnv(func(name string) string { return m[name] })
}

func names(s Set) string {
	var all []string
	for _, p := range s.All {
		all = append(all, p.Name())
	}
	return strings.Join(all, " ")
}

func TestFromEnv(t *testing.T) {
	set, err := from(live())
	if err != nil || names(set) != "ecpay paypal alipay stripe" || set.TestMode {
		t.Fatalf("%s, test mode %t, error %v", names(set), set.TestMode, err)
	}
	for i, want := range []string{ecpay.Live, paypal.Live, alipay.Live, stripe.Live} {
		if got := host(set.All[i]); got != want {
			t.Errorf("%s is at %s, want %s", set.All[i].Name(), got, want)
		}
	}
	p, ok := set.Find("paypal")
	if c, is := p.(*paypal.Client); !ok || !is || c.Webhooks.Sandbox || c.Webhooks.ID != "W1" || c.Merchant != "M1" ||
		c.Postback {
		t.Errorf("paypal is %+v", p)
	}
	if _, ok := set.Find("cash"); ok {
		t.Error("there is cash")
	}

	set, err = from(tests())
	if err != nil || names(set) != "ecpay paypal alipay stripe" || !set.TestMode {
		t.Fatalf("%s, test mode %t, error %v", names(set), set.TestMode, err)
	}
	if p, _ := set.Find("paypal"); !p.(*paypal.Client).Webhooks.Sandbox {
		t.Error("the sandbox of PayPal is not one")
	}

	standIns := tests()
	maps.Copy(standIns, map[string]string{
		"ECPAY_HOST": "http://127.0.0.1:8080", "PAYPAL_HOST": "http://[::1]:8081", "PAYPAL_VERIFY": "postback",
		"ALIPAY_GATEWAY": "http://localhost:8082/gateway.do", "STRIPE_HOST": "http://127.0.0.1:8083",
		"ECPAY_MERCHANT_ID": "3002607", "ECPAY_HASH_KEY": "pwFHCqoQZGmho4w6", "ECPAY_CREDIT_CHECK_CODE": "9\n",
	})
	set, err = from(standIns)
	if err != nil || len(set.All) != 4 {
		t.Fatalf("%s, error %v", names(set), err)
	}
	if c := set.All[0].(*ecpay.Client); c.CheckCode != "9" || c.Merchant != "3002607" {
		t.Errorf("ecpay is %+v", c)
	}
	if !set.All[1].(*paypal.Client).Postback {
		t.Error("PayPal verifies by its certificate")
	}

	set, err = from(map[string]string{"ECPAY_HOST": ecpay.Stage, "PAYPAL_VERIFY": "x"})
	if err != nil || len(set.All) != 0 {
		t.Errorf("nothing set up: %s, error %v", names(set), err)
	}
}

func host(p payment.Provider) string {
	switch c := p.(type) {
	case *ecpay.Client:
		return c.Host
	case *paypal.Client:
		return c.Host
	case *alipay.Client:
		return c.Gateway
	case *stripe.Client:
		return c.Host
	}
	return ""
}

// TestWhatIsWrong: each error names its variable, and tells no secret.
func TestWhatIsWrong(t *testing.T) {
	for _, test := range []struct {
		base        func() map[string]string
		name, value string
		want        string // in the error, besides the name
	}{
		{live, "PAYMENT_TEST_MODE", "yes!", "neither true nor false"},
		// Test mode with what is live.
		{live, "PAYMENT_TEST_MODE", "true", "ECPAY_HOST: is the live one"},
		{tests, "ECPAY_HOST", "", "is the live one"},
		{tests, "PAYPAL_HOST", paypal.Live, "is the live one"},
		{tests, "ALIPAY_GATEWAY", alipay.Live, "is the live one"},
		{tests, "STRIPE_SECRET_KEY", "sk_live_stripeSecret1", "is a live one"},
		{tests, "STRIPE_SECRET_KEY", "rk_live_stripeSecret1", "is a live one"},
		// Live with what is for tests.
		{live, "ECPAY_HOST", ecpay.Stage, "must be without"},
		{live, "PAYPAL_HOST", paypal.Sandbox, "must be without"},
		{live, "ALIPAY_GATEWAY", alipay.Sandbox, "must be without"},
		{live, "STRIPE_HOST", "http://127.0.0.1:1", "must be without"},
		{live, "ECPAY_HOST", "http://127.0.0.1:1", "must be without"},
		{live, "ECPAY_MERCHANT_ID", "3002607", "for tests"},
		{live, "ECPAY_HASH_KEY", "5294y06JbISpM5x9", "for tests"},
		{live, "STRIPE_SECRET_KEY", "sk_test_stripeSecret1", "for tests"},
		{live, "STRIPE_SECRET_KEY", "rk_test_stripeSecret1", "for tests"},
		// Somebody else's host in either.
		{live, "PAYPAL_HOST", "https://api-m.paypal.com.example", "must be without"},
		{tests, "PAYPAL_HOST", "https://API-M.paypal.com", "an address of this machine"},
		{tests, "PAYPAL_HOST", "https://localhost@api-m.paypal.com", "an address of this machine"},
		{tests, "PAYPAL_HOST", "https://127.0.0.1.example", "an address of this machine"},
		{tests, "PAYPAL_HOST", "ftp://127.0.0.1", "an address of this machine"},
		{tests, "PAYPAL_HOST", "http://me@127.0.0.1", "an address of this machine"},
		{tests, "STRIPE_HOST", "https://stripe.example", "an address of this machine"},
		// What cannot be read.
		{live, "STRIPE_SECRET_KEY", "pk_live_stripeSecret1", "no secret or restricted key"},
		{live, "PAYPAL_VERIFY", "never", "neither certificate nor postback"},
		{live, "ALIPAY_PRIVATE_KEY", "alipaySecret1", "base64"},
		{live, "ALIPAY_PUBLIC_KEY", "?", "base64"},
	} {
		m := test.base()
		m[test.name] = test.value
		set, err := from(m)
		if err == nil || len(set.All) != 0 {
			t.Errorf("%s=%s is taken", test.name, test.value)
			continue
		}
		text := err.Error()
		if !strings.Contains(text, test.want) || !strings.Contains(text, test.name) ||
			strings.Contains(text, "Secret") {
			t.Errorf("%s=%s: error %s", test.name, test.value, text)
		}
	}
}

// TestTogether: the variables of providers may come as one, as a store of secrets gives them; one that is set alone
// comes first, and nobody is told of secrets by what is wrong.
func TestTogether(t *testing.T) {
	all := tests()
	delete(all, "PAYMENT_TEST_MODE")
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"PAYMENT_TEST_MODE": "true", "PAYMENT_SETTINGS": string(text) + "\n", "ECPAY_MERCHANT_ID": "7654321",
	} {
		t.Setenv(name, value)
	}
	vars := config.New("x")
	settings := Declare(vars)
	if err := vars.Parse(); err != nil {
		t.Fatal(err)
	}
	set, err := settings.Providers()
	if err != nil || names(set) != "ecpay paypal alipay stripe" || host(set.All[0]) != ecpay.Stage ||
		set.All[0].(*ecpay.Client).Merchant != "7654321" {
		t.Errorf("%+v, %v", set, err)
	}

	for text, want := range map[string]string{
		`hunter2`: "is no JSON object", `["hunter2"]`: "is no JSON object",
		`{"STRIPE_KEY": "hunter2"}`:        `has "STRIPE_KEY"`,
		`{"STRIPE_SECRET_KEY": "hunter2"}`: "WEBHOOK_SECRET: is not set",
		`{"PAYMENT_TEST_MODE": "true"}`:    "is no variable of a provider",
	} {
		_, err := from(map[string]string{"PAYMENT_SETTINGS": text})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestHalfSetUp: a provider has all that it needs, or nothing.
func TestHalfSetUp(t *testing.T) {
	for _, k := range kinds {
		for _, v := range k.variables {
			m := live()
			delete(m, v.name)
			_, err := from(m)
			if v.required != (err != nil) || v.required && !strings.HasPrefix(err.Error(), v.name+": is not set") {
				t.Errorf("without %s: error %v", v.name, err)
			}
		}
	}
}

func TestDeclare(t *testing.T) {
	for name, value := range tests() {
		t.Setenv(name, value)
	}
	vars := config.New("program")
	settings := Declare(vars)
	if err := vars.Parse(); err != nil {
		t.Fatal(err)
	}
	set, err := settings.Providers()
	if err != nil || names(set) != "ecpay paypal alipay stripe" || !set.TestMode {
		t.Errorf("%s, test mode %t, error %v", names(set), set.TestMode, err)
	}
	var usage bytes.Buffer
	vars.Usage(&usage, "does something")
	for _, k := range kinds {
		for _, v := range k.variables {
			if !strings.Contains(usage.String(), "  "+v.name+" ") {
				t.Errorf("the usage has no %s", v.name)
			}
		}
	}
}

// Package providers makes the providers of payments that are set up, by variables of the environment.
package providers

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"stampede/internal/config"
	"stampede/internal/payment"
	"stampede/internal/payment/alipay"
	"stampede/internal/payment/ecpay"
	"stampede/internal/payment/paypal"
	"stampede/internal/payment/stripe"
)

const (
	testMode = "PAYMENT_TEST_MODE"
	// together is the variable that may hold those of all providers.
	together = "PAYMENT_SETTINGS"
)

// variable is one of the environment. The fallback of a required one is empty, as is that of one that may be.
type variable struct {
	name, fallback, usage string
	required              bool
}

// kind is a provider as it is set up: it is, if one of its required variables is set, of which it then needs all.
type kind struct {
	variables []variable
	// host is the variable of its address, which is the live one, the sandbox's, or a stand-in's.
	host, live, sandbox string
	// check finds what else does not fit the mode, and make makes it.
	check func(get func(string) string, test bool) error
	make  func(get func(string) string) (payment.Provider, error)
}

var kinds = []kind{
	{
		variables: []variable{
			{"ECPAY_MERCHANT_ID", "", "number of the merchant at ECPay; with it, ECPay is offered", true},
			{"ECPAY_HASH_KEY", "", "the merchant's HashKey", true},
			{"ECPAY_HASH_IV", "", "the merchant's HashIV", true},
			{"ECPAY_CREDIT_CHECK_CODE", "", "the merchant's check code of cards; refunds of cards need it", false},
			{"ECPAY_HOST", ecpay.Live, "address of ECPay; " + ecpay.Stage + " is its stage", false},
		},
		host: "ECPAY_HOST", live: ecpay.Live, sandbox: ecpay.Stage, check: checkECPay, make: makeECPay,
	},
	{
		variables: []variable{
			{"PAYPAL_CLIENT_ID", "", "id of the application at PayPal; with it, PayPal is offered", true},
			{"PAYPAL_SECRET", "", "the application's secret", true},
			{"PAYPAL_WEBHOOK_ID", "", "id of the webhook", true},
			{"PAYPAL_MERCHANT_ID", "", "id of the merchant who is paid", true},
			{"PAYPAL_VERIFY", byCertificate, "how notices are verified: by PayPal's certificate, or postback", false},
			{"PAYPAL_HOST", paypal.Live, "address of PayPal; " + paypal.Sandbox + " is its sandbox", false},
		},
		host: "PAYPAL_HOST", live: paypal.Live, sandbox: paypal.Sandbox, check: checkPayPal, make: makePayPal,
	},
	{
		variables: []variable{
			{"ALIPAY_APP_ID", "", "id of the application at Alipay; with it, Alipay is offered", true},
			{"ALIPAY_PRIVATE_KEY", "", "the application's private key, base64 in one line", true},
			{"ALIPAY_PUBLIC_KEY", "", "Alipay's public key for the application, base64 in one line", true},
			{"ALIPAY_SELLER_ID", "", "id of the merchant who is paid", true},
			{"ALIPAY_GATEWAY", alipay.Live, "address of Alipay; " + alipay.Sandbox + " is its sandbox", false},
		},
		host: "ALIPAY_GATEWAY", live: alipay.Live, sandbox: alipay.Sandbox, make: makeAlipay,
	},
	{
		variables: []variable{
			{"STRIPE_SECRET_KEY", "", "secret or restricted key at Stripe; with it, Stripe is offered", true},
			{"STRIPE_WEBHOOK_SECRET", "", "secret of the webhook", true},
			{"STRIPE_HOST", stripe.Live, "address of Stripe, whose key says whether it is live", false},
		},
		host: "STRIPE_HOST", live: stripe.Live, check: checkStripe, make: makeStripe,
	},
}

// Set are the providers that are set up.
type Set struct {
	// All are in the order in which they are offered.
	All []payment.Provider
	// TestMode says that payments which a provider has simulated count, and that no real money can be taken. A program
	// says so when it starts.
	TestMode bool
}

// Find returns a provider by its name.
func (s Set) Find(name string) (payment.Provider, bool) {
	i := slices.IndexFunc(s.All, func(p payment.Provider) bool { return p.Name() == name })
	if i < 0 {
		return nil, false
	}
	return s.All[i], true
}

// Settings are the variables of the environment that set up providers.
type Settings struct {
	texts     map[string]*string
	fallbacks map[string]string
	test      *bool
}

// Declare declares them. A provider whose variables are not set is not offered.
func Declare(vars *config.Set) *Settings {
	s := &Settings{texts: map[string]*string{}, fallbacks: map[string]string{}}
	s.test = vars.Bool(testMode, "true: payments are simulated and count as paid; only with sandboxes and stand-ins")
	s.texts[together] = vars.Optional(together, "the variables of providers that follow as one JSON object of texts, "+
		"as stores of secrets give them; one that is set by itself comes first")
	for _, k := range kinds {
		for _, v := range k.variables {
			if v.fallback == "" {
				s.texts[v.name] = vars.Optional(v.name, v.usage)
			} else {
				s.texts[v.name], s.fallbacks[v.name] = vars.String(v.name, v.fallback, v.usage), v.fallback
			}
		}
	}
	return s
}

// Providers makes the providers by the settings. Its errors are those of FromEnv.
func (s *Settings) Providers() (Set, error) {
	return FromEnv(func(name string) string {
		if name == testMode {
			return strconv.FormatBool(*s.test)
		}
		if text := *s.texts[name]; text != s.fallbacks[name] {
			return text
		}
		return ""
	})
}

// FromEnv makes the providers by variables. The error holds a line for each that is wrong, with its name and without
// its value: which may be missing where another is set, or not fit the mode. What is live and what is for tests never
// mix.
func FromEnv(getenv func(string) string) (Set, error) {
	get, err := withTogether(getenv)
	if err != nil {
		return Set{}, fmt.Errorf("%s: %w", together, err)
	}
	var set Set
	var errs []error
	if text := get(testMode); text != "" {
		var err error
		if set.TestMode, err = strconv.ParseBool(text); err != nil {
			return Set{}, errors.New(testMode + ": is neither true nor false")
		}
	}
	for _, k := range kinds {
		p, err := k.open(get, set.TestMode)
		switch {
		case err != nil:
			errs = append(errs, err)
		case p != nil:
			set.All = append(set.All, p)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Set{}, err
	}
	return set, nil
}

// withTogether reads variables that are set by themselves, and those of providers also from the one that holds them
// all. Its errors tell no value, as there are secrets among them.
func withTogether(getenv func(string) string) (get func(string) string, err error) {
	alone := func(name string) string { return strings.TrimRight(getenv(name), "\r\n") }
	text := alone(together)
	if text == "" {
		return alone, nil
	}
	var all map[string]string
	if json.Unmarshal([]byte(text), &all) != nil {
		return nil, errors.New("is no JSON object of texts")
	}
	for name := range all {
		if !slices.ContainsFunc(kinds, func(k kind) bool { return k.has(name) }) {
			return nil, fmt.Errorf("has %.40q, which is no variable of a provider", name)
		}
	}
	return func(name string) string { return cmp.Or(alone(name), strings.TrimRight(all[name], "\r\n")) }, nil
}

// has reports whether a variable is one of the provider's.
func (k kind) has(name string) bool {
	return slices.ContainsFunc(k.variables, func(v variable) bool { return v.name == name })
}

// open makes a provider, or returns nil if it is not set up.
func (k kind) open(getenv func(string) string, test bool) (payment.Provider, error) {
	get := func(name string) string {
		value := getenv(name)
		for _, v := range k.variables {
			if v.name == name && value == "" {
				return v.fallback
			}
		}
		return value
	}
	var missing []error
	required := 0
	for _, v := range k.variables {
		if !v.required {
			continue
		}
		if required++; get(v.name) == "" {
			missing = append(missing, fmt.Errorf("%s: is not set, and others of its provider are", v.name))
		}
	}
	switch len(missing) {
	case required:
		return nil, nil
	case 0:
	default:
		return nil, errors.Join(missing...)
	}

	err := k.checkHost(get(k.host), test)
	if k.check != nil {
		err = errors.Join(err, k.check(get, test))
	}
	if err != nil {
		return nil, err
	}
	return k.make(get)
}

// checkHost holds an address to the mode: the live one without test mode, and the sandbox or a stand-in on this machine
// with it. Stripe has one address for both.
func (k kind) checkHost(address string, test bool) error {
	isLive, isTest := address == k.live, address == k.sandbox || isLoopback(address)
	if k.sandbox == "" {
		isTest = isTest || isLive
	}
	switch {
	case !test && !isLive:
		return fmt.Errorf("%s: is not %s, which it must be without %s", k.host, k.live, testMode)
	case test && isLive && !isTest:
		return fmt.Errorf("%s: is the live one, with %s", k.host, testMode)
	case test && !isTest:
		return fmt.Errorf("%s: is neither %s nor an address of this machine", k.host, k.sandbox)
	}
	return nil
}

// isLoopback reports whether an address is of a server on this machine.
func isLoopback(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
		return false
	}
	return u.Hostname() == "localhost" || net.ParseIP(u.Hostname()).IsLoopback()
}

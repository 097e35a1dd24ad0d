package providers

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"stampede/internal/payment"
	"stampede/internal/payment/alipay"
	"stampede/internal/payment/ecpay"
	"stampede/internal/payment/paypal"
	"stampede/internal/payment/stripe"
)

// The ways to verify PayPal's notices.
const (
	byCertificate = "certificate"
	byPostback    = "postback"
)

// publicMerchants and publicKeys are those of ECPay's stage, which it publishes: whoever knows them can sign.
var (
	publicMerchants = []string{"2000132", "3002599", "3002607"}
	publicKeys      = []string{"5294y06JbISpM5x9", "spPjZn66i0OhqJsQ", "pwFHCqoQZGmho4w6"}
)

func checkECPay(get func(string) string, test bool) error {
	switch {
	case test:
		return nil
	case slices.Contains(publicMerchants, get("ECPAY_MERCHANT_ID")):
		return errors.New("ECPAY_MERCHANT_ID: is one that ECPay publishes for tests, without " + testMode)
	case slices.Contains(publicKeys, get("ECPAY_HASH_KEY")):
		return errors.New("ECPAY_HASH_KEY: is one that ECPay publishes for tests, without " + testMode)
	}
	return nil
}

func makeECPay(get func(string) string) (payment.Provider, error) {
	return &ecpay.Client{
		Keys: ecpay.Keys{
			Merchant: get("ECPAY_MERCHANT_ID"), HashKey: get("ECPAY_HASH_KEY"), HashIV: get("ECPAY_HASH_IV"),
		},
		CheckCode: get("ECPAY_CREDIT_CHECK_CODE"), Host: get("ECPAY_HOST"),
	}, nil
}

func checkPayPal(get func(string) string, _ bool) error {
	if how := get("PAYPAL_VERIFY"); how != byCertificate && how != byPostback {
		return fmt.Errorf("PAYPAL_VERIFY: is neither %s nor %s", byCertificate, byPostback)
	}
	return nil
}

func makePayPal(get func(string) string) (payment.Provider, error) {
	host := get("PAYPAL_HOST")
	return &paypal.Client{
		ID: get("PAYPAL_CLIENT_ID"), Secret: get("PAYPAL_SECRET"), Merchant: get("PAYPAL_MERCHANT_ID"), Host: host,
		Webhooks: &paypal.Webhooks{ID: get("PAYPAL_WEBHOOK_ID"), Sandbox: host != paypal.Live},
		Postback: get("PAYPAL_VERIFY") == byPostback,
	}, nil
}

func makeAlipay(get func(string) string) (payment.Provider, error) {
	own, ownErr := alipay.ParseOwnKey(get("ALIPAY_PRIVATE_KEY"))
	if ownErr != nil {
		ownErr = fmt.Errorf("ALIPAY_PRIVATE_KEY: %w", ownErr)
	}
	key, err := alipay.ParseKey(get("ALIPAY_PUBLIC_KEY"))
	if err != nil {
		err = fmt.Errorf("ALIPAY_PUBLIC_KEY: %w", err)
	}
	if err := errors.Join(ownErr, err); err != nil {
		return nil, err
	}
	return &alipay.Client{
		Account: alipay.Account{AppID: get("ALIPAY_APP_ID"), SellerID: get("ALIPAY_SELLER_ID"), Key: key},
		Gateway: get("ALIPAY_GATEWAY"), Own: own,
	}, nil
}

// checkStripe holds the key to the mode, which it names, whether it may do all (sk) or is restricted (rk).
func checkStripe(get func(string) string, test bool) error {
	key := get("STRIPE_SECRET_KEY")
	isOf := func(mode string) bool {
		return strings.HasPrefix(key, "sk_"+mode) || strings.HasPrefix(key, "rk_"+mode)
	}
	switch {
	case isOf("test_") && !test:
		return errors.New("STRIPE_SECRET_KEY: is one for tests, without " + testMode)
	case isOf("live_") && test:
		return errors.New("STRIPE_SECRET_KEY: is a live one, with " + testMode)
	case !isOf("test_") && !isOf("live_"):
		return errors.New("STRIPE_SECRET_KEY: is no secret or restricted key")
	}
	return nil
}

func makeStripe(get func(string) string) (payment.Provider, error) {
	return &stripe.Client{
		Key: get("STRIPE_SECRET_KEY"), WebhookSecret: get("STRIPE_WEBHOOK_SECRET"), Host: get("STRIPE_HOST"),
	}, nil
}

package pay

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"net/url"
	"os"
	"testing"
)

func pairs(pairs ...string) url.Values {
	form := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	return form
}

// TestECPaySignature: ECPay's own examples.
func TestECPaySignature(t *testing.T) {
	for want, form := range map[string]url.Values{
		"6C51C9E6888DE861FD62FB1DD17029FC742634498FD813DC43D4243B5685B840": pairs("TradeDesc", "促銷方案",
			"PaymentType", "aio", "MerchantTradeDate", "2023/03/12 15:30:23", "MerchantTradeNo", "ecpay20230312153023",
			"MerchantID", "3002607", "ReturnURL", "https://www.ecpay.com.tw/receive.php", "ItemName",
			"Apple iphone 15", "TotalAmount", "30000", "ChoosePayment", "ALL", "EncryptType", "1"),
		"CF0A3D4901D99459D8641516EC57210700E8A5C9AB26B1D021301E9CB93EF78D": pairs("MerchantID", "3002607",
			"ItemName", "Tom's Shop", "TotalAmount", "100", "CheckMacValue", "x"),
	} {
		if got := mac(form, ecpayHashKey, ecpayHashIV); got != want {
			t.Errorf("%v: signed %s, want %s", form, got, want)
		}
	}
}

// TestPayPalSignature: an event that PayPal has published with its signature and its certificate.
func TestPayPalSignature(t *testing.T) {
	event, err := os.ReadFile("../../internal/payment/paypal/testdata/event.json")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../internal/payment/paypal/testdata/sandbox.crt")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	const signature = "" +
		"K7DF5+hOyGS6v0xTZ9PkEO+BFNQmpryxw2hFlXbHgmxpu+883ldEC9HcL6ccEmB8sfy80y/Q3qcZZL1MR8Qi0e1ysylVj/yROgKK" +
		"6zBsQPoNmgXC8yTiNoAjULuhk5Aoau0Itk3nrkgAfji1zvADlErMFM9VZe2nDvhM3nDMLjCi/K5fRjWp3eGo6Nx17GX/WIEibeKD" +
		"yS+YdJMex3i+KO4aWmm9zznC/FJ5Y/ntd0MxOJNrM0r0f3y7c3e3sO5pB3oPgN6KzKVS5P6AWHqtS8acD3DjgCKZ1uqKz7q954G1" +
		"aBz2/m0wRGOFFsv0/D3FE2uIheRRmoQtVSOAX7Aupg=="
	signed := transmission("afa30d40-ca4a-11e9-ab68-7d4e2605c70c", "2019-08-29T10:49:33Z", "0FV983392A0531201", event)
	if !verifyRSA(cert.PublicKey.(*rsa.PublicKey), signed, signature) {
		t.Errorf("PayPal has not signed %s", signed)
	}
}

// TestStripeSignature: made by "printf 1492774577.{} | openssl dgst -sha256 -hmac whsec_test".
func TestStripeSignature(t *testing.T) {
	const want = "0d0602f6611bd2252dd4b74b58a4528355a7380639a15e6cc21e3059d56d5b8b"
	if got := stripeSignature("whsec_test", 1492774577, []byte("{}")); got != want {
		t.Errorf("signed %s, want %s", got, want)
	}
}

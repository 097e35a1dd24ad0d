// Package ecpay speaks with ECPay (Taiwan), the all-in-one checkout (AIO).
//
// Source of its rules: ECPay's developer documentation, "AIO, CheckMacValue" and "payment result notification".
package ecpay

import (
	"crypto/md5"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/url"
	"slices"
	"strings"
)

// macField holds the signature of a form.
const macField = "CheckMacValue"

// Keys are a merchant's secrets for one of ECPay's services.
type Keys struct {
	Merchant, HashKey, HashIV string
}

// plainInDotNet undoes what .NET leaves as it is when it encodes a form, and encodes what it does. Everything is in
// lower case by then.
var plainInDotNet = strings.NewReplacer("%2d", "-", "%5f", "_", "%2e", ".", "%21", "!", "%2a", "*", "%28", "(",
	"%29", ")", "~", "%7e")

// signed is the text that a form's signature is of: all fields but the signature, empty ones too, by their names
// without regard to case.
func (k Keys) signed(form url.Values) string {
	names := make([]string, 0, len(form))
	for name := range form {
		if name != macField {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return strings.Compare(strings.ToLower(a), strings.ToLower(b))
	})

	var text strings.Builder
	text.WriteString("HashKey=" + k.HashKey)
	for _, name := range names {
		text.WriteString("&" + name + "=" + form.Get(name))
	}
	text.WriteString("&HashIV=" + k.HashIV)
	return plainInDotNet.Replace(strings.ToLower(url.QueryEscape(text.String())))
}

// Sign returns the CheckMacValue of a form for payments, by SHA-256. The form has each field once.
func (k Keys) Sign(form url.Values) string {
	sum := sha256.Sum256([]byte(k.signed(form)))
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}

// SignLogistics is Sign for the logistics service, which still signs by MD5.
func (k Keys) SignLogistics(form url.Values) string {
	sum := md5.Sum([]byte(k.signed(form)))
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}

// verifies reports whether a form carries the signature that it must have, in a time that tells nothing of it.
func verifies(form url.Values, want string) bool {
	return subtle.ConstantTimeCompare([]byte(form.Get(macField)), []byte(want)) == 1
}

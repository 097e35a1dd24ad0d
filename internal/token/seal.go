package token

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
)

const (
	// sealLabel derives the key of what is sealed from a secret, so that no seal is a signature of anything else.
	sealLabel = "list cursor\x00"
	// sealBytes is how much of a signature a sealed value carries: 128 bits, which nobody guesses over the network.
	sealBytes = 16
	// maxSealedBytes bounds what is looked at; a sealed value of ours has 32 to 56 characters.
	maxSealedBytes = 64
)

// Seal writes a value of a kind, such as a place in a list, for clients to keep and to bring again. They can read it,
// and only who has the secret can make one. It is of letters, digits, - and _.
func (k *Keeper) Seal(kind string, value []byte) string {
	sealed := append(value[:len(value):len(value)], seal(k.keys[0].secret, kind, value)...)
	return base64.RawURLEncoding.EncodeToString(sealed)
}

// Open returns the value of a kind that was sealed with any of the secrets. A value may be written in one way only.
func (k *Keeper) Open(kind string, text []byte) (value []byte, ok bool) {
	if len(text) > maxSealedBytes {
		return nil, false
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(string(text))
	if err != nil || len(sealed) < sealBytes || base64.RawURLEncoding.EncodeToString(sealed) != string(text) {
		return nil, false // the decoder passes over line breaks
	}
	value, mac := sealed[:len(sealed)-sealBytes], sealed[len(sealed)-sealBytes:]
	for _, key := range k.keys {
		if hmac.Equal(mac, seal(key.secret, kind, value)) {
			return value, true
		}
	}
	return nil, false
}

func seal(secret []byte, kind string, value []byte) []byte {
	derive := hmac.New(sha256.New, secret)
	derive.Write([]byte(sealLabel + kind))
	mac := hmac.New(sha256.New, derive.Sum(nil))
	mac.Write(value)
	return mac.Sum(nil)[:sealBytes]
}

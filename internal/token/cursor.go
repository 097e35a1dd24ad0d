package token

import (
	"crypto/hmac"
	"crypto/sha256"
)

const (
	// cursorLabel derives the key of cursors from a secret, so that no cursor is a signature of anything else.
	cursorLabel = "list cursor\x00"
	// cursorMACBytes is how much of a signature a cursor carries: 128 bits, which nobody guesses over the network.
	cursorMACBytes = 16
)

// SignCursor makes a cursor of a place in a list. Only who has the secret can make one, so that clients cannot have
// pages made that no list has.
func (k *Keeper) SignCursor(list string, place []byte) []byte {
	return append(place[:len(place):len(place)], cursorMAC(k.keys[0].secret, list, place)...)
}

// OpenCursor returns the place in a cursor of this list that was signed with any of the secrets.
func (k *Keeper) OpenCursor(list string, cursor []byte) (place []byte, ok bool) {
	if len(cursor) < cursorMACBytes {
		return nil, false
	}
	place, mac := cursor[:len(cursor)-cursorMACBytes], cursor[len(cursor)-cursorMACBytes:]
	for _, key := range k.keys {
		if hmac.Equal(mac, cursorMAC(key.secret, list, place)) {
			return place, true
		}
	}
	return nil, false
}

func cursorMAC(secret []byte, list string, place []byte) []byte {
	derive := hmac.New(sha256.New, secret)
	derive.Write([]byte(cursorLabel + list))
	mac := hmac.New(sha256.New, derive.Sum(nil))
	mac.Write(place)
	return mac.Sum(nil)[:cursorMACBytes]
}

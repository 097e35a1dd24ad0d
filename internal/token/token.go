// Package token makes and checks the access tokens that name a buyer: JSON Web Tokens (RFC 7519)
// signed with HMAC-SHA-256 and nothing else.
package token

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"stampede/internal/order"
)

const (
	// MinSecretBytes is the shortest key that HS256 allows (RFC 7518, section 3.2).
	MinSecretBytes = 32
	// minBitsPerByte is how unevenly the bytes of a secret may be spread. Of 32 random hexadecimal digits it is some
	// 3.6, and of a million such secrets none had less than 2.7.
	minBitsPerByte = 2.5
	// maxSecrets bounds the keys that are valid at a time.
	maxSecrets = 8
	// maxTokenBytes bounds what is parsed; a token of ours has about 150 bytes.
	maxTokenBytes = 4 << 10
	// successorLabel begins what is signed to make a refresh token, and cannot begin a JWT.
	successorLabel = "refresh token\x00"
	// clockSkew is by how much the clocks of the maker and the checker of a token may differ.
	clockSkew = 5 * time.Second
)

// ErrInvalid is the one answer to every token that does not name a buyer. It does not say why, since
// that would help only who makes tokens up.
var ErrInvalid = errors.New("token is missing, malformed, forged or expired")

// The roles that tokens name. Whoever has none is a buyer.
const (
	Buyer    = "buyer"
	Merchant = "merchant"
	Admin    = "admin"
)

// Claims are what a token says of the one who carries it.
type Claims struct {
	UserID order.UserID
	// SessionID is the session that the token belongs to and ends with; Nil if it was made without one.
	SessionID uuid.UUID
	// Role is empty or what the maker of the token has written.
	Role string
}

// wireClaims are the claims as they are in a token.
type wireClaims struct {
	jwt.RegisteredClaims
	SessionID string `json:"sid,omitempty"`
	Role      string `json:"role,omitempty"`
}

// Keeper makes and checks tokens. It is safe for concurrent use.
type Keeper struct {
	keys   []key
	parser *jwt.Parser
	known  *memory
}

// key is a secret with the name under which a token refers to it.
type key struct {
	id     string
	secret []byte
}

// CheckSecret says what is wrong with a secret, or with one of several, without repeating it.
func CheckSecret(secret string) error {
	secrets := strings.Split(secret, ",")
	if len(secrets) > maxSecrets {
		return fmt.Errorf("has %d secrets, want at most %d", len(secrets), maxSecrets)
	}
	for _, s := range secrets {
		if len(s) < MinSecretBytes {
			return fmt.Errorf("has a secret of %d bytes, want at least %d; make one with: openssl rand -hex 32", len(s),
				MinSecretBytes)
		}
		if bitsPerByte(s) < minBitsPerByte || isRepetition(s) {
			return errors.New("has a secret that is not random; make one with: openssl rand -hex 32")
		}
	}
	return nil
}

// bitsPerByte is Shannon's entropy of how often each byte occurs. It is no proof that a secret is random, only that it
// may be.
func bitsPerByte(secret string) float64 {
	var counts [256]int
	for i := range len(secret) {
		counts[secret[i]]++
	}

	bits := 0.0
	for _, n := range counts {
		if n > 0 {
			share := float64(n) / float64(len(secret))
			bits -= share * math.Log2(share)
		}
	}
	return bits
}

// isRepetition reports whether a text is a word written three times or more, of which the last may be cut off.
func isRepetition(text string) bool {
	for n := 1; n <= len(text)/3; n++ {
		if text[n:] == text[:len(text)-n] {
			return true
		}
	}
	return false
}

// NewKeeper makes a Keeper of a secret that CheckSecret accepts. It may be several, comma-separated:
// tokens are signed with the first and accepted with any, so that keys can be rotated by putting a new
// one in front, and taking the old one away when its last token has expired. A token names its key by
// the start of the key's SHA-256, as kid.
func NewKeeper(secret string) *Keeper {
	k := &Keeper{known: newMemory(), parser: jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
		jwt.WithExpirationRequired(), jwt.WithLeeway(clockSkew), jwt.WithIssuedAt(), jwt.WithStrictDecoding(),
	)}
	for s := range strings.SplitSeq(secret, ",") {
		sum := sha256.Sum256([]byte(s))
		k.keys = append(k.keys, key{hex.EncodeToString(sum[:4]), []byte(s)})
	}
	return k
}

// Successor is the refresh token that replaces another: always the same one, so that a client which asks twice gets one
// answer, and one that only who has the secret can tell, so that an old token is no key to those after it. While a
// secret is put in the place of another, edges may differ.
func (k *Keeper) Successor(refresh []byte) []byte {
	mac := hmac.New(sha256.New, k.keys[0].secret)
	mac.Write([]byte(successorLabel))
	mac.Write(refresh)
	return mac.Sum(nil)
}

// Sign makes a token that expires after ttl.
func (k *Keeper) Sign(c Claims, ttl time.Duration) (string, error) {
	now := time.Now()
	claims := wireClaims{Role: c.Role, RegisteredClaims: jwt.RegisteredClaims{
		Subject:   c.UserID.String(),
		IssuedAt:  jwt.NewNumericDate(now),
		ExpiresAt: jwt.NewNumericDate(now.Add(ttl)),
	}}
	if c.SessionID != uuid.Nil {
		claims.SessionID = c.SessionID.String()
	}
	t := jwt.NewWithClaims(jwt.SigningMethodHS256, claims)
	t.Header["kid"] = k.keys[0].id
	return t.SignedString(k.keys[0].secret)
}

// WriteTokens signs a token for each user from first to last, with a role, and writes it on a line.
func (k *Keeper) WriteTokens(w io.Writer, first, last int64, role string, ttl time.Duration) error {
	buffered := bufio.NewWriter(w)
	for i := range last - first + 1 {
		raw, err := k.Sign(Claims{UserID: order.UserID(first + i), Role: role}, ttl)
		if err != nil {
			return err
		}
		fmt.Fprintln(buffered, raw)
	}
	return buffered.Flush()
}

// Verify returns what a token says at a time, or ErrInvalid. It keeps nothing of raw. A token that was valid before is
// known again, and costs a hash; its claims are those of then, so nobody may change them.
func (k *Keeper) Verify(raw []byte, now time.Time) (*Claims, error) {
	if len(raw) > maxTokenBytes {
		return nil, ErrInvalid
	}
	if claims := k.known.find(raw, now); claims != nil {
		return claims, nil
	}
	var wire wireClaims
	if _, err := k.parser.ParseWithClaims(string(raw), &wire, k.find); err != nil {
		return nil, ErrInvalid
	}
	c, err := wire.claims()
	if err == nil {
		k.known.add(raw, c, wire.ExpiresAt.Add(clockSkew))
	}
	return c, err
}

// claims reads claims out of a token whose signature and times are good.
func (wire *wireClaims) claims() (*Claims, error) {
	c := &Claims{Role: wire.Role}
	user, err := strconv.ParseInt(wire.Subject, 10, 64)
	if err != nil || user <= 0 {
		return nil, ErrInvalid
	}
	c.UserID = order.UserID(user)
	if wire.SessionID != "" {
		if c.SessionID, err = uuid.Parse(wire.SessionID); err != nil {
			return nil, ErrInvalid
		}
	}
	return c, nil
}

// find returns the key that a token names. One that names none, which others may have made with our
// secret, is tried with all.
func (k *Keeper) find(t *jwt.Token) (any, error) {
	id, named := t.Header["kid"]
	var all jwt.VerificationKeySet
	for _, key := range k.keys {
		if named && id == key.id {
			return key.secret, nil
		}
		all.Keys = append(all.Keys, key.secret)
	}
	if named {
		return nil, ErrInvalid
	}
	return all, nil
}

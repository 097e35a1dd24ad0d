// Package room is the waiting room of a sale: who stands where, who may order now, and how anybody can verify it.
package room

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"math/bits"
)

// Seed fixes the order in which those are let in who have joined before the start. Its SHA-256, the commitment, is
// shown from before the first of them joins, and the seed itself when the room has closed.
type Seed [32]byte

// Commitment is the SHA-256 of a seed.
type Commitment [sha256.Size]byte

// NewSeed makes a seed.
func NewSeed() (s Seed) {
	_, _ = rand.Read(s[:]) // it never fails
	return s
}

// Commitment returns what is shown of a seed before the start.
func (s Seed) Commitment() Commitment { return sha256.Sum256(s[:]) }

// MarshalText and UnmarshalText have the form of 64 hexadecimal digits.
func (s Seed) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, s[:]), nil }

// UnmarshalText reads 64 hexadecimal digits.
func (s *Seed) UnmarshalText(text []byte) error { return unhex(s[:], text) }

// MarshalText has the form of 64 hexadecimal digits.
func (c Commitment) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, c[:]), nil }

// UnmarshalText reads 64 hexadecimal digits.
func (c *Commitment) UnmarshalText(text []byte) error { return unhex(c[:], text) }

func unhex(to, text []byte) error {
	if len(text) != 2*len(to) {
		return fmt.Errorf("not %d hexadecimal digits", 2*len(to))
	}
	if _, err := hex.Decode(to, text); err != nil {
		return errors.New("not hexadecimal digits")
	}
	return nil
}

// rounds are those of a Feistel network over a domain of any size, as in FF1 of NIST SP 800-38G.
const rounds = 10

// drawLabel keeps the values of a draw apart from whatever else a seed may be a key for.
const drawLabel = "stampede draw 1"

// Draw gives each of those who have joined before the start their place, by their index, which counts them in the order
// in which they came. It is a permutation of 0 to n-1 that the seed fixes: a Feistel network over the smallest domain
// of an even number of bits that holds n numbers, walked until its result is one of them (Black and Rogaway, "Ciphers
// with Arbitrary Finite Domains", 2002). A round's function is HMAC-SHA256 under the seed. So no list is shuffled
// or kept, however many have joined, and each place can be recomputed by itself.
//
// A Draw is not for concurrent use.
type Draw struct {
	n    uint64
	half uint // bits
	mac  hash.Hash
	sum  [sha256.Size]byte
}

// NewDraw is the draw among n. What a public beacon has told at the start, if anything, is mixed into
// the seed, so that not even who has made the seed has chosen the draw.
func NewDraw(seed Seed, beacon []byte, n uint64) *Draw {
	key := seed[:]
	if len(beacon) > 0 {
		mac := hmac.New(sha256.New, seed[:])
		mac.Write(beacon)
		key = mac.Sum(nil)
	}
	width := uint(bits.Len64(max(n, 2) - 1))
	return &Draw{n: n, half: (width + 1) / 2, mac: hmac.New(sha256.New, key)}
}

// Place is the place of an index, both from 0 on. Who has joined after the start stands behind, in the order of coming.
func (d *Draw) Place(index uint64) uint64 {
	if index >= d.n {
		return index
	}
	for index = d.permute(index); index >= d.n; index = d.permute(index) {
	}
	return index
}

// Index is the index of a place, the inverse of Place.
func (d *Draw) Index(place uint64) uint64 {
	if place >= d.n {
		return place
	}
	for place = d.invert(place); place >= d.n; place = d.invert(place) {
	}
	return place
}

// permute is a permutation of the numbers of twice half the bits.
func (d *Draw) permute(x uint64) uint64 {
	left, right := x>>d.half, x&(1<<d.half-1)
	for round := range rounds {
		left, right = right, left^d.round(round, right)
	}
	return left<<d.half | right
}

func (d *Draw) invert(x uint64) uint64 {
	left, right := x>>d.half, x&(1<<d.half-1)
	for round := rounds - 1; round >= 0; round-- {
		left, right = right^d.round(round, left), left
	}
	return left<<d.half | right
}

// round is the last bits of HMAC-SHA256(key, label, round, half), whose numbers are of 1 and 8 bytes, big-endian.
func (d *Draw) round(round int, half uint64) uint64 {
	var message [len(drawLabel) + 9]byte
	copy(message[:], drawLabel)
	message[len(drawLabel)] = byte(round)
	binary.BigEndian.PutUint64(message[len(drawLabel)+1:], half)
	d.mac.Reset()
	d.mac.Write(message[:])
	sum := d.mac.Sum(d.sum[:0])
	return binary.BigEndian.Uint64(sum[len(sum)-8:]) & (1<<d.half - 1)
}

package token

import (
	"crypto/subtle"
	"hash/maphash"
	"sync"
	"time"
)

// maxKnown bounds the valid tokens that are known, at about 500 bytes each.
const maxKnown = 65_536

// memory knows valid tokens. It has two halves, so that what was not asked for lately goes without a list to be kept in
// order at each look: when the young half is full it becomes the old one, whose tokens are young again when they come.
type memory struct {
	seed maphash.Seed

	mu         sync.RWMutex
	young, old map[uint64]known
}

// known is a valid token, what it says, and until when it is valid.
type known struct {
	raw    []byte
	claims *Claims
	until  time.Time
}

func newMemory() *memory { return &memory{seed: maphash.MakeSeed(), young: make(map[uint64]known)} }

// find returns what a token says if it is known and valid at a time, or nil. Tokens are compared in a time that tells
// nothing about those that are held.
func (m *memory) find(raw []byte, now time.Time) *Claims {
	hash := maphash.Bytes(m.seed, raw)
	m.mu.RLock()
	found, young := m.young[hash]
	if !young {
		found = m.old[hash]
	}
	m.mu.RUnlock()
	if subtle.ConstantTimeCompare(found.raw, raw) != 1 || !now.Before(found.until) {
		return nil
	}
	if !young {
		m.keep(hash, found)
	}
	return found.claims
}

// add remembers a valid token.
func (m *memory) add(raw []byte, claims *Claims, until time.Time) {
	m.keep(maphash.Bytes(m.seed, raw), known{append([]byte(nil), raw...), claims, until})
}

func (m *memory) keep(hash uint64, token known) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.young) >= maxKnown/2 {
		m.young, m.old = make(map[uint64]known), m.young
	}
	m.young[hash] = token
}

// Package password hashes and checks passwords with argon2id (RFC 9106).
//
// A hash is slow and takes much memory on purpose, which makes a flood of logins a cheap attack on everything else in
// the process. So a Hasher works at a few hashes at a time, lets a bounded number of callers wait, and refuses the rest
// at once.
package password

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"

	"github.com/alexedwards/argon2id"
	"golang.org/x/crypto/argon2"
)

const (
	// maxRunning bounds the hashes under way, and with them their memory, however many processors there are.
	maxRunning = 8
	// MaxWaiting is how many callers wait for one of those. A hash with the default parameters takes some tens of
	// milliseconds, so the last of them waits for two or three seconds even where one hash is made at a time; nobody
	// waits for a login much longer.
	MaxWaiting = 64

	// saltBytes and keyBytes are what RFC 9106, section 4, recommends.
	saltBytes = 16
	keyBytes  = 32

	// maxHashBytes bounds a stored hash before it is parsed. One of ours has about 100 bytes.
	maxHashBytes = 255
)

// Bounds of the parameters. The least are those of the OWASP Password Storage Cheat Sheet, which names configurations
// of equal strength from 47104 KiB with 1 iteration to 7168 KiB with 5, all of 35,840 or more as the product of both.
// The greatest guard against a slip that would stop the service, and against a stored hash that is not ours.
const (
	MinMemoryKiB   = 7_168
	minWork        = 35_840 // KiB times iterations
	MaxMemoryKiB   = 1 << 20
	MaxIterations  = 100
	MaxParallelism = 64
)

var (
	// ErrBusy: as many callers as may are waiting for a hash, or the caller's time went by while it waited. Nothing was
	// done.
	ErrBusy = errors.New("too many passwords are being checked")
	// ErrBadHash: a stored hash is not one of argon2id in the PHC string format, or has parameters out of all bounds.
	ErrBadHash = errors.New("the stored password hash is not valid")
)

// Params say how much work a hash is.
type Params struct {
	MemoryKiB   uint32
	Iterations  uint32
	Parallelism uint8
}

// DefaultParams are what the OWASP Password Storage Cheat Sheet recommends: 19 MiB, 2 iterations, 1 lane.
func DefaultParams() Params { return Params{MemoryKiB: 19_456, Iterations: 2, Parallelism: 1} }

// Validate says what is wrong with parameters for new hashes, or nil.
func (p Params) Validate() error {
	switch {
	case p.MemoryKiB < MinMemoryKiB || p.MemoryKiB > MaxMemoryKiB:
		return fmt.Errorf("memory is %d KiB, want %d to %d", p.MemoryKiB, MinMemoryKiB, MaxMemoryKiB)
	case p.Iterations < 1 || p.Iterations > MaxIterations:
		return fmt.Errorf("iterations are %d, want 1 to %d", p.Iterations, MaxIterations)
	case p.Parallelism < 1 || p.Parallelism > MaxParallelism:
		return fmt.Errorf("parallelism is %d, want 1 to %d", p.Parallelism, MaxParallelism)
	case uint64(p.MemoryKiB)*uint64(p.Iterations) < minWork:
		return fmt.Errorf("%d iterations over %d KiB are too little work, want a product of at least %d", p.Iterations,
			p.MemoryKiB, minWork)
	}
	return nil
}

// Hasher makes and checks hashes. It is safe for concurrent use, and a process should have one.
type Hasher struct {
	params argon2id.Params
	// nobody is a hash with params whose key is random, so that no known password has it.
	nobody string
	// places are held by the callers that wait or work, slots by those that work.
	places, slots chan struct{}

	// create and check are argon2id's own, but in tests.
	create func(password string, params *argon2id.Params) (string, error)
	check  func(password, hash string) (bool, *argon2id.Params, error)
}

// New makes a Hasher that uses up to half of the processors, or says what is wrong with the parameters.
func New(p Params) (*Hasher, error) {
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("password hashing: %w", err)
	}
	running := min(max(1, runtime.GOMAXPROCS(0)/2), maxRunning)
	random := make([]byte, saltBytes+keyBytes)
	_, _ = rand.Read(random) // never fails
	encode := base64.RawStdEncoding.EncodeToString
	return &Hasher{
		params: argon2id.Params{
			Memory: p.MemoryKiB, Iterations: p.Iterations, Parallelism: p.Parallelism, SaltLength: saltBytes,
			KeyLength: keyBytes,
		},
		nobody: fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, p.MemoryKiB, p.Iterations,
			p.Parallelism,
			encode(random[:saltBytes]), encode(random[saltBytes:])),
		places: make(chan struct{}, running+MaxWaiting),
		slots:  make(chan struct{}, running),
		create: argon2id.CreateHash,
		check:  argon2id.CheckHash,
	}, nil
}

// Hash makes a hash of a password for storage, as a PHC string that carries its salt and parameters. The password
// should have passed Check; of it Hash itself asks only that it is not too long (ErrRefused). It returns ErrBusy at
// once if MaxWaiting callers wait or its time goes by while it waits, and the context's error if that has ended
// otherwise.
func (h *Hasher) Hash(ctx context.Context, password string) (hash string, err error) {
	if len(password) > maxBytes {
		return "", errTooLong
	}
	err = h.work(ctx, func() (err error) {
		hash, err = h.create(Normalize(password), &h.params)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	return hash, nil
}

// Verify says whether a password is the one that was hashed. It fails like Hash, and with ErrBadHash, but a password
// that is too long is just a wrong one. A hash from before passwords were normalised is found by the password as it was
// typed.
func (h *Hasher) Verify(ctx context.Context, password, hash string) (match bool, err error) {
	if _, err := decode(hash); err != nil {
		return false, fmt.Errorf("verify password: %w", err)
	}
	if len(password) > maxBytes {
		return false, nil
	}
	err = h.work(ctx, func() (err error) {
		normal := Normalize(password)
		match, _, err = h.check(normal, hash)
		if err == nil && !match && normal != password {
			match, _, err = h.check(password, hash)
		}
		return err
	})
	if err != nil {
		return false, fmt.Errorf("verify password: %w", err)
	}
	return match, nil
}

// VerifyNobody does for a user who does not exist what Verify does for one whose password is wrong: the same work, with
// the same errors. Without it, the time of a refused login would tell who has an account. (A user whose hash has other
// parameters than the present ones can still be told, until it is renewed: see NeedsRehash.)
func (h *Hasher) VerifyNobody(ctx context.Context, password string) error {
	_, err := h.Verify(ctx, password, h.nobody)
	return err
}

// NeedsRehash says whether a hash was made with other parameters than the present ones. The moment to renew it is after
// Verify has found the password right, which is the only time when it is known.
func (h *Hasher) NeedsRehash(hash string) bool {
	params, err := decode(hash)
	return err != nil || *params != h.params
}

// decode reads the parameters of a stored hash. Those that make argon2 panic or take all memory are refused.
func decode(hash string) (*argon2id.Params, error) {
	if len(hash) > maxHashBytes {
		return nil, fmt.Errorf("%w: it has more than %d bytes", ErrBadHash, maxHashBytes)
	}
	p, _, _, err := argon2id.DecodeHash(hash)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrBadHash, err)
	case p.Memory > MaxMemoryKiB || p.Iterations < 1 || p.Iterations > MaxIterations ||
		p.Parallelism < 1 || p.Parallelism > MaxParallelism || p.SaltLength == 0 || p.KeyLength < 16:
		return nil, fmt.Errorf("%w: its parameters are out of bounds", ErrBadHash)
	}
	return p, nil
}

// work runs fn when one of the slots is free. Once fn has begun nothing stops it.
func (h *Hasher) work(ctx context.Context, fn func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case h.places <- struct{}{}:
		defer func() { <-h.places }()
	default:
		return ErrBusy
	}
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return ErrBusy // its time went by in the queue
		}
		return ctx.Err()
	}
	return fn()
}

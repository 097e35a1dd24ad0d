package main

import (
	"crypto/sha256"
	"errors"
	"net/http"
	"net/netip"
	"sync"

	"stampede/internal/access"
	"stampede/internal/account"
	"stampede/internal/password"
	"stampede/internal/problem"
)

const (
	// defaultPasswordLimit is for the same office or network: each request that it lets through costs a hash, of which
	// one processor makes some thirty in a second.
	defaultPasswordLimit = "5/50"
	// guessLimit is how often a password may be tried at one account from one address: a person who tries all that they
	// ever had is done after ten, and a machine gets 360 an hour.
	guessLimit = "0.1/10"
	// maxHashesPerAddress is how many of the places for hashes the clients of one address hold at a time, running or
	// waiting: an eighth of the queue, so that everybody else waits for a few of theirs at most.
	maxHashesPerAddress = password.MaxWaiting / 8
)

// passwords makes and checks hashes, as far as clients have not had their share of them.
type passwords struct {
	*password.Hasher
	// limit counts by address what costs a hash, guesses by account and address.
	limit   *access.Limiter[netip.Prefix]
	guesses *access.Limiter[guess]
	shares  shares
}

func newPasswords(hasher *password.Hasher) *passwords {
	p := &passwords{Hasher: hasher, shares: shares{held: map[netip.Prefix]int{}}}
	if err := errors.Join(p.setLimit(defaultPasswordLimit), p.setGuessLimit(guessLimit)); err != nil {
		panic(err) // the defaults are valid
	}
	return p
}

// setLimit sets how often an address may ask for what costs a hash, as access.NewLimiter reads it.
func (p *passwords) setLimit(text string) (err error) {
	p.limit, err = access.NewLimiter[netip.Prefix]("passwords", text, "There are too many passwords from this address.")
	return err
}

// setGuessLimit sets how often a password may be tried at one account from one address.
func (p *passwords) setGuessLimit(text string) (err error) {
	p.guesses, err = access.NewLimiter[guess]("account", text,
		"There were too many tries to log in to this account from this address; nothing was checked.")
	return err
}

// guess is a try to log in, as far as tries are counted together: by the account's address, of which a hash keeps the
// key short whatever a client sends, and by where the client is. Tries from elsewhere are counted apart, so that who
// guesses does not lock the owner out.
type guess struct {
	email [sha256.Size]byte
	from  netip.Prefix
}

func newGuess(email string, from netip.Prefix) guess {
	key, err := account.NormalizeEmail(email)
	if err != nil {
		key = email
	}
	return guess{sha256.Sum256([]byte(key)), from}
}

// shares count the places for hashes that the clients of each address hold.
type shares struct {
	mu   sync.Mutex
	held map[netip.Prefix]int
}

// take takes a place of an address's share and reports whether there was one.
func (s *shares) take(from netip.Prefix) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[from] >= maxHashesPerAddress {
		return false
	}
	s.held[from]++
	return true
}

func (s *shares) giveBack(from netip.Prefix) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[from]--; s.held[from] == 0 {
		delete(s.held, from)
	}
}

// forPassword lets requests through that cost a hash, as far as the client's address has not had its share of them: by
// the second, and of the places at a time.
func (s *Shop) forPassword(next handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		from, ok := s.client(r)
		if !ok {
			return next(w, r)
		}
		if err := s.passwords.limit.Allow(w.Header(), from); err != nil {
			return err
		}
		if !s.passwords.shares.take(from) {
			return busy()
		}
		defer s.passwords.shares.giveBack(from)
		return next(w, r)
	}
}

// client is what of a client's address is counted as one client.
func (s *Shop) client(r *http.Request) (netip.Prefix, bool) {
	client, _ := s.guard.Proxies.Client(remote(r), r.Header.Values)
	return access.Counted(client)
}

// busy is why a request is refused for which there is no place to hash a password. That is the doing of those who ask,
// and no error of the shop.
func busy() *problem.Error {
	return &problem.Error{Code: problem.RateLimited, RetryAfter: problem.RetryAfter(),
		Detail: "Too many passwords are being checked; nothing was done."}
}

// mayGuess counts a try at an account's password.
func (s *Shop) mayGuess(w http.ResponseWriter, r *http.Request, email string) (try guess, err error) {
	from, _ := s.client(r)
	try = newGuess(email, from)
	if err := s.passwords.guesses.Allow(w.Header(), try); err != nil {
		return try, err
	}
	return try, nil
}

package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"stampede/internal/account"
	"stampede/internal/config"
	"stampede/internal/order"
	"stampede/internal/token"
)

// tokenCmd makes access tokens without the edge, for tests and loads.
type tokenCmd struct {
	User  order.UserID  `placeholder:"N" required:"" xor:"users" help:"User id, a positive number."`
	Users userRange     `placeholder:"N-M" required:"" xor:"users" help:"Range of user ids, such as 1-5000; prints one token per line."`
	Role  account.Role  `enum:"buyer,merchant,admin" default:"buyer" help:"What the users may do: buyer, merchant or admin."`
	TTL   time.Duration `default:"1h" help:"How long the token is valid."`

	secret *string
}

func (c *tokenCmd) declare(vars *config.Set) {
	c.secret = vars.Secret("JWT_SECRET", "key of the access tokens, at least 32 bytes", token.CheckSecret)
}

func (c *tokenCmd) Validate() error {
	if c.User < 0 || c.TTL <= 0 {
		return errors.New("--user and --ttl must be positive")
	}
	return nil
}

func (c *tokenCmd) Run() error {
	users := c.Users
	if users == (userRange{}) {
		users = userRange{int64(c.User), int64(c.User)}
	}
	return token.NewKeeper(*c.secret).WriteTokens(os.Stdout, users.first, users.last, string(c.Role), c.TTL)
}

// maxTokens bounds the tokens that are made at a time, of some 200 bytes each.
const maxTokens = 1_000_000

// userRange is the user ids from first to last, written as 1-5000.
type userRange struct{ first, last int64 }

func (r *userRange) UnmarshalText(text []byte) error {
	first, last, _ := strings.Cut(string(text), "-")
	var err, err2 error
	r.first, err = strconv.ParseInt(first, 10, 64)
	r.last, err2 = strconv.ParseInt(last, 10, 64)
	if errors.Join(err, err2) != nil || r.first <= 0 || r.last < r.first || r.last-r.first >= maxTokens {
		return fmt.Errorf("it must be two positive numbers, such as 1-5000, with at most %d ids", maxTokens)
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"text/tabwriter"
	"time"

	"stampede/internal/account"
	"stampede/internal/order"
	"stampede/internal/plaintext"
)

// banSubject says who a ban is about.
type banSubject struct {
	User    order.UserID `placeholder:"N" required:"" xor:"subject" help:"Id of the user."`
	Address addressSet   `placeholder:"ADDRESS" required:"" xor:"subject" help:"Address or range of addresses, such as 203.0.113.7 or 203.0.113.0/24."`
}

func (s *banSubject) ban() account.Ban { return account.Ban{UserID: s.User, Prefix: s.Address.Prefix} }

// addressSet is one address or a range of them on the command line.
type addressSet struct{ netip.Prefix }

func (a *addressSet) UnmarshalText(text []byte) (err error) {
	if addr, err := netip.ParseAddr(string(text)); err == nil {
		a.Prefix = netip.PrefixFrom(addr, addr.BitLen())
		return nil
	}
	if a.Prefix, err = netip.ParsePrefix(string(text)); err != nil {
		return fmt.Errorf("%q is neither an address nor a range", text)
	}
	return nil
}

// who names the subject of a ban.
func who(b account.Ban) string {
	if b.UserID != 0 {
		return fmt.Sprintf("user %d", b.UserID)
	}
	return b.Prefix.String()
}

type banAddCmd struct {
	banSubject
	Reason string        `placeholder:"TEXT" help:"The reason, for other operators."`
	For    time.Duration `placeholder:"DURATION" help:"How long, such as 24h; for ever if not given."`
	needsMySQL
}

func (c *banAddCmd) Validate() error {
	if c.For < 0 {
		return errors.New("--for must not be negative")
	}
	return nil
}

func (c *banAddCmd) Run(ctx context.Context) error {
	db, err := c.open()
	if err != nil {
		return err
	}
	defer db.Close()
	b := c.ban()
	b.Reason = c.Reason
	if c.For > 0 {
		b.ExpiresAt = time.Now().Add(c.For)
	}
	if err := account.New(db).Ban(ctx, b); err != nil {
		return err
	}
	fmt.Printf("%s is banned; every edge knows within a second\n", who(b))
	return nil
}

type banLiftCmd struct {
	banSubject
	needsMySQL
}

func (c *banLiftCmd) Run(ctx context.Context) error {
	db, err := c.open()
	if err != nil {
		return err
	}
	defer db.Close()
	b := c.ban()
	lifted, err := account.New(db).Unban(ctx, b)
	switch {
	case err != nil:
		return err
	case !lifted:
		return fmt.Errorf("%s is not banned", who(b))
	}
	fmt.Printf("%s is not banned any longer\n", who(b))
	return nil
}

type banListCmd struct{ needsMySQL }

func (c *banListCmd) Run(ctx context.Context) error {
	db, err := c.open()
	if err != nil {
		return err
	}
	defer db.Close()
	bans, err := account.New(db).Bans(ctx, time.Now())
	if err != nil {
		return err
	}
	tab := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "who\tsince\tuntil\treason")
	for _, b := range bans {
		fmt.Fprintf(tab, "%s\t%s\t%s\t%s\n", who(b), b.CreatedAt.Format(time.RFC3339),
			orDash(!b.ExpiresAt.IsZero(), b.ExpiresAt.Format(time.RFC3339)), plaintext.Escape(b.Reason))
	}
	return tab.Flush()
}

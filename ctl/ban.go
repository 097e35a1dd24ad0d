package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"text/tabwriter"
	"time"

	"stampede/internal/plaintext"
	"stampede/internal/store"
)

// banSubject declares the flags that say who a ban is about.
func banSubject(in *input) func() (store.Ban, error) {
	user := in.Int64("user", 0, "id of the user")
	address := in.String("address", "", "address or range of addresses, such as 203.0.113.7 or 203.0.113.0/24")
	return func() (store.Ban, error) {
		switch {
		case (*user == 0) == (*address == ""):
			return store.Ban{}, errors.New("give either --user or --address")
		case *user != 0:
			return store.Ban{UserID: *user}, nil
		}
		if addr, err := netip.ParseAddr(*address); err == nil {
			return store.Ban{Prefix: netip.PrefixFrom(addr, addr.BitLen())}, nil
		}
		prefix, err := netip.ParsePrefix(*address)
		if err != nil {
			return store.Ban{}, fmt.Errorf("--address: %q is neither an address nor a range", *address)
		}
		return store.Ban{Prefix: prefix}, nil
	}
}

// who names the subject of a ban.
func who(b store.Ban) string {
	if b.UserID != 0 {
		return fmt.Sprintf("user %d", b.UserID)
	}
	return b.Prefix.String()
}

func runBanAdd(ctx context.Context, args []string) error {
	in := newInput("ban add")
	subject := banSubject(in)
	reason := in.String("reason", "", "why, for the operators")
	duration := in.Duration("for", 0, "how long, such as 24h; 0 is for ever")
	db, err := in.parseAndOpenStore(args)
	if err != nil {
		return err
	}
	defer db.Close()
	b, err := subject()
	if err != nil {
		return usagef("ban add: %w", err)
	}
	if *duration < 0 {
		return usagef("ban add: --for must not be negative")
	}
	b.Reason = *reason
	if *duration > 0 {
		b.ExpiresAt = time.Now().Add(*duration)
	}
	if err := db.Ban(ctx, b); err != nil {
		return err
	}
	fmt.Printf("%s is banned; every edge knows within a second\n", who(b))
	return nil
}

func runBanLift(ctx context.Context, args []string) error {
	in := newInput("ban lift")
	subject := banSubject(in)
	db, err := in.parseAndOpenStore(args)
	if err != nil {
		return err
	}
	defer db.Close()
	b, err := subject()
	if err != nil {
		return usagef("ban lift: %w", err)
	}
	lifted, err := db.Unban(ctx, b)
	switch {
	case err != nil:
		return err
	case !lifted:
		return fmt.Errorf("%s is not banned", who(b))
	}
	fmt.Printf("%s is not banned any longer\n", who(b))
	return nil
}

func runBanList(ctx context.Context, args []string) error {
	in := newInput("ban list")
	db, err := in.parseAndOpenStore(args)
	if err != nil {
		return err
	}
	defer db.Close()
	bans, err := db.Bans(ctx, time.Now())
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

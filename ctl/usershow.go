package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"

	"stampede/internal/account"
	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
)

// shownOrders is how many of a user's orders are shown.
const shownOrders = 10

// userReport is what is known of an account. It holds nothing by which anybody could log in.
type userReport struct {
	User userAccount `json:"user"`
	// Banned are the bans of the user. Which addresses a user has is not known, and so not whether one of them is
	// banned.
	Banned   []userBan      `json:"bans"`
	Sessions []userSession  `json:"sessions"` // newest first, of those that are not purged yet
	Orders   []order.Record `json:"latest_orders"`
}

// userAccount is the account without its password's hash.
type userAccount struct {
	ID                order.UserID `json:"user_id"`
	Email             string       `json:"email"`
	Name              string       `json:"name"`
	Role              account.Role `json:"role"`
	CreatedAt         time.Time    `json:"created_at"`
	PasswordChangedAt time.Time    `json:"password_changed_at,omitzero"`
	DisabledAt        time.Time    `json:"disabled_at,omitzero"`
}

// userBan is a ban of the user.
type userBan struct {
	Reason    string    `json:"reason"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

// userSession is a login.
type userSession struct {
	ID        uuid.UUID `json:"session_id"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"`
	RevokedAt time.Time `json:"revoked_at,omitzero"`
	Live      bool      `json:"live"`
}

type userShowCmd struct {
	User string `arg:"" help:"E-mail address or id of the user."`
	jsonFlag
	needsMySQL
}

func (c *userShowCmd) Run(ctx context.Context) error {
	db, err := c.open()
	if err != nil {
		return err
	}
	defer db.Close()
	return showUser(ctx, os.Stdout, db, c.User, c.JSON)
}

// showUser prints what is known of the user with an e-mail address or id.
func showUser(ctx context.Context, w io.Writer, db *mysql.DB, who string, asJSON bool) error {
	report, err := reportUser(ctx, db, who, time.Now())
	if err != nil {
		return err
	}
	if asJSON {
		return writeJSON(w, report)
	}
	return report.print(w)
}

// findUser reads the account that an e-mail address or an id names.
func findUser(ctx context.Context, accounts *account.Accounts, who string) (account.User, error) {
	id, err := strconv.ParseInt(who, 10, 64)
	if err != nil {
		return userByEmail(ctx, accounts, who)
	}
	user, err := accounts.User(ctx, order.UserID(id))
	if errors.Is(err, mysql.ErrNotFound) {
		return user, fmt.Errorf("there is no user %d", id)
	}
	return user, err
}

func reportUser(ctx context.Context, db *mysql.DB, who string, now time.Time) (userReport, error) {
	r := userReport{Banned: []userBan{}, Sessions: []userSession{}}

	accounts := account.New(db)
	user, err := findUser(ctx, accounts, who)
	if err != nil {
		return r, err
	}
	r.User = userAccount{
		ID: user.ID, Email: user.Email, Name: user.Name, Role: user.Role, CreatedAt: user.CreatedAt,
		PasswordChangedAt: user.PasswordChangedAt, DisabledAt: user.DisabledAt,
	}

	bans, err := accounts.Bans(ctx, now)
	if err != nil {
		return r, err
	}
	for _, b := range bans {
		if b.UserID == r.User.ID {
			r.Banned = append(r.Banned, userBan{b.Reason, b.CreatedAt, b.ExpiresAt})
		}
	}

	sessions, err := accounts.Sessions(ctx, r.User.ID)
	if err != nil {
		return r, err
	}
	for _, s := range sessions {
		live := s.RevokedAt.IsZero() && now.Before(s.ExpiresAt)
		r.Sessions = append(r.Sessions, userSession{s.ID, s.CreatedAt, s.ExpiresAt, s.RevokedAt, live})
	}

	if r.Orders, err = ledger.New(db).Orders(ctx, r.User.ID, order.OrderID{}, shownOrders); err != nil {
		return r, err
	}
	for i := range r.Orders {
		r.Orders[i] = *shown(&r.Orders[i])
	}

	return r, nil
}

// print writes the report for people.
func (r *userReport) print(w io.Writer) error {
	live := len(slices.DeleteFunc(slices.Clone(r.Sessions), func(s userSession) bool { return !s.Live }))

	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tab, "user\t%d\n", r.User.ID)
	fmt.Fprintf(tab, "e-mail address\t%q\n", r.User.Email)
	fmt.Fprintf(tab, "name\t%q\n", r.User.Name)
	fmt.Fprintf(tab, "role\t%s\n", r.User.Role)
	fmt.Fprintf(tab, "since\t%s\n", r.User.CreatedAt.Format(time.RFC3339))
	fmt.Fprintf(tab, "password changed\t%s\n", orNever(r.User.PasswordChangedAt))
	fmt.Fprintf(tab, "disabled\t%s\n", sinceOrNo(r.User.DisabledAt))

	for _, b := range r.Banned {
		fmt.Fprintf(tab, "banned\tsince %s, until %s: %q\n",
			b.CreatedAt.Format(time.RFC3339), orForEver(b.ExpiresAt), b.Reason)
	}
	if len(r.Banned) == 0 {
		fmt.Fprintln(tab, "banned\tno (bans of addresses are in ctl ban list)")
	}

	fmt.Fprintf(tab, "sessions\t%d live, %d in all\n", live, len(r.Sessions))
	if err := tab.Flush(); err != nil {
		return err
	}

	if live > 0 {
		fmt.Fprintln(w, "\nLive sessions:")
		fmt.Fprintln(tab, "session\tsince\tuntil")
		for _, s := range r.Sessions {
			if s.Live {
				fmt.Fprintf(tab, "%s\t%s\t%s\n", s.ID, s.CreatedAt.Format(time.RFC3339),
					s.ExpiresAt.Format(time.RFC3339))
			}
		}
		if err := tab.Flush(); err != nil {
			return err
		}
	}

	if len(r.Orders) == 0 {
		_, err := fmt.Fprintln(w, "\nNo order is decided. Those on their way are in Redis and on the queue alone.")
		return err
	}

	fmt.Fprintln(w, "\nLatest orders that are decided:")
	fmt.Fprintln(tab, "order\tdecided\tproduct\tunits\tprice\toutcome")
	for _, o := range r.Orders {
		fmt.Fprintf(tab, "%s\t%s\t%d\t%d\t%s\t%s\n", o.ID, o.DecidedAt.Format(time.RFC3339), o.StockID, o.Quantity,
			order.Money(o.TotalPrice(), o.Currency), outcome(&o))
	}
	return tab.Flush()
}

func orNever(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.Format(time.RFC3339)
}

func orForEver(t time.Time) string {
	if t.IsZero() {
		return "for ever"
	}
	return t.Format(time.RFC3339)
}

func sinceOrNo(t time.Time) string {
	if t.IsZero() {
		return "no"
	}
	return "since " + t.Format(time.RFC3339)
}

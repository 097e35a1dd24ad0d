package room

import (
	"testing"
	"time"

	"stampede/internal/token"
)

func TestTicketsAndPasses(t *testing.T) {
	t.Parallel()
	desk := Desk{token.NewKeeper("a secret of at least 32 characters")}
	until := time.UnixMilli(1_800_000_000_123).UTC()
	ticket, pass := desk.Ticket(7, 42, 1_000_000), desk.Pass(7, 42, until)
	if index, ok := desk.ReadTicket([]byte(ticket), 7, 42); !ok || index != 1_000_000 {
		t.Errorf("ticket %q: index %d, %v", ticket, index, ok)
	}
	if got, ok := desk.ReadPass([]byte(pass), 7, 42); !ok || !got.Equal(until) {
		t.Errorf("pass %q: until %s, %v", pass, got, ok)
	}

	for what, read := range map[string]func() bool{
		"a ticket of another user":    func() bool { _, ok := desk.ReadTicket([]byte(ticket), 7, 43); return ok },
		"a ticket of another product": func() bool { _, ok := desk.ReadTicket([]byte(ticket), 8, 42); return ok },
		"a pass of another user":      func() bool { _, ok := desk.ReadPass([]byte(pass), 7, 43); return ok },
		"a pass of another product":   func() bool { _, ok := desk.ReadPass([]byte(pass), 8, 42); return ok },
		"a ticket as a pass":          func() bool { _, ok := desk.ReadPass([]byte(ticket), 7, 42); return ok },
		"a pass as a ticket":          func() bool { _, ok := desk.ReadTicket([]byte(pass), 7, 42); return ok },
		"nothing":                     func() bool { _, ok := desk.ReadPass(nil, 7, 42); return ok },
		"a longer ticket": func() bool {
			_, ok := desk.ReadTicket([]byte(desk.Keeper.Seal(ticketKind, make([]byte, 25))), 0, 0)
			return ok
		},
		"a pass of another secret": func() bool {
			other := Desk{token.NewKeeper("another one of at least 32 characters")}
			_, ok := desk.ReadPass([]byte(other.Pass(7, 42, until)), 7, 42)
			return ok
		},
	} {
		if read() {
			t.Errorf("%s is taken", what)
		}
	}
}

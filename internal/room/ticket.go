package room

import (
	"encoding/binary"
	"time"

	"stampede/internal/order"
	"stampede/internal/token"
)

// Desk writes and reads what clients hold of a room. Nobody else can make it, and it is of no use to anybody but its
// user, or with another product.
type Desk struct{ Keeper *token.Keeper }

const (
	ticketKind = "room ticket"
	passKind   = "room pass"
)

// Ticket writes that a user has an index in the room of a product, so that he has it still if Redis loses its data.
func (d Desk) Ticket(product order.ProductID, user order.UserID, index int64) string {
	return d.Keeper.Seal(ticketKind, values(product, user, index))
}

// ReadTicket returns the index in a ticket of this user and product.
func (d Desk) ReadTicket(text []byte, product order.ProductID, user order.UserID) (index int64, ok bool) {
	return d.read(ticketKind, text, product, user)
}

// Pass writes that a user may order a product until a time.
func (d Desk) Pass(product order.ProductID, user order.UserID, until time.Time) string {
	return d.Keeper.Seal(passKind, values(product, user, until.UnixMilli()))
}

// ReadPass returns until when a pass of this user and product is good.
func (d Desk) ReadPass(text []byte, product order.ProductID, user order.UserID) (until time.Time, ok bool) {
	ms, ok := d.read(passKind, text, product, user)
	return time.UnixMilli(ms).UTC(), ok
}

func values(product order.ProductID, user order.UserID, n int64) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 24), uint64(product))
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, uint64(user)), uint64(n))
}

func (d Desk) read(kind string, text []byte, product order.ProductID, user order.UserID) (n int64, ok bool) {
	b, ok := d.Keeper.Open(kind, text)
	if !ok || len(b) != 24 || order.ProductID(binary.BigEndian.Uint64(b)) != product ||
		order.UserID(binary.BigEndian.Uint64(b[8:])) != user {
		return 0, false
	}
	return int64(binary.BigEndian.Uint64(b[16:])), true
}

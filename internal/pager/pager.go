// Package pager has the cursors of lists, the same for edge and shop.
package pager

import (
	"encoding/base64"
	"encoding/binary"

	"github.com/google/uuid"

	"stampede/internal/order"
	"stampede/internal/token"
)

// Cursors name places in the lists that clients go through page by page. They are signed: each place costs a page of a
// cache, and there shall be no more of them than pages.
type Cursors struct{ Keeper *token.Keeper }

const (
	orderList   = "orders"
	productList = "products"
)

// Order names the place that is behind an order.
func (c Cursors) Order(id order.OrderID) string { return c.write(orderList, id[:]) }

// ReadOrder reads what Order wrote, or nothing, which is the start of the list.
func (c Cursors) ReadOrder(text []byte) (before order.OrderID, ok bool) {
	if len(text) == 0 {
		return order.OrderID{}, true
	}
	place, ok := c.read(orderList, text)
	if !ok {
		return order.OrderID{}, false
	}
	id, err := uuid.FromBytes(place)
	return order.OrderID(id), err == nil
}

// Product names the place that is behind a product.
func (c Cursors) Product(id order.ProductID) string {
	return c.write(productList, binary.BigEndian.AppendUint64(nil, uint64(id)))
}

// ReadProduct reads what Product wrote, or nothing, which is the start of the list.
func (c Cursors) ReadProduct(text []byte) (after order.ProductID, ok bool) {
	if len(text) == 0 {
		return 0, true
	}
	place, ok := c.read(productList, text)
	if !ok || len(place) != 8 {
		return 0, false
	}
	after = order.ProductID(binary.BigEndian.Uint64(place))
	return after, after > 0
}

func (c Cursors) write(list string, place []byte) string {
	return base64.RawURLEncoding.EncodeToString(c.Keeper.SignCursor(list, place))
}

// maxCursorBytes bounds what is looked at; a cursor of ours has 32 to 43 characters.
const maxCursorBytes = 64

// read returns the place in a cursor, which may be written in one way only.
func (c Cursors) read(list string, text []byte) (place []byte, ok bool) {
	if len(text) > maxCursorBytes {
		return nil, false
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(string(text))
	if err != nil || base64.RawURLEncoding.EncodeToString(raw) != string(text) {
		return nil, false
	}
	return c.Keeper.OpenCursor(list, raw)
}

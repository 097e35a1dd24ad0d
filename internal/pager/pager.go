// Package pager has the cursors of lists, the same for edge and shop.
package pager

import (
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
	walletList  = "wallet"
)

// Order names the place that is behind an order.
func (c Cursors) Order(id order.OrderID) string { return c.Keeper.Seal(orderList, id[:]) }

// ReadOrder reads what Order wrote, or nothing, which is the start of the list.
func (c Cursors) ReadOrder(text []byte) (before order.OrderID, ok bool) {
	if len(text) == 0 {
		return order.OrderID{}, true
	}
	place, ok := c.Keeper.Open(orderList, text)
	if !ok {
		return order.OrderID{}, false
	}
	id, err := uuid.FromBytes(place)
	return order.OrderID(id), err == nil
}

// Product names the place that is behind a product.
func (c Cursors) Product(id order.ProductID) string { return c.writeNumber(productList, int64(id)) }

// ReadProduct reads what Product wrote, or nothing, which is the start of the list.
func (c Cursors) ReadProduct(text []byte) (after order.ProductID, ok bool) {
	n, ok := c.readNumber(productList, text)
	return order.ProductID(n), ok
}

// Entry names the place that is behind a change of a wallet, by its version.
func (c Cursors) Entry(version int64) string { return c.writeNumber(walletList, version) }

// ReadEntry reads what Entry wrote, or nothing, which is the start of the list.
func (c Cursors) ReadEntry(text []byte) (before int64, ok bool) {
	return c.readNumber(walletList, text)
}

func (c Cursors) writeNumber(list string, n int64) string {
	return c.Keeper.Seal(list, binary.BigEndian.AppendUint64(nil, uint64(n)))
}

// readNumber reads a number from 1 on, or nothing as 0.
func (c Cursors) readNumber(list string, text []byte) (n int64, ok bool) {
	if len(text) == 0 {
		return 0, true
	}
	place, ok := c.Keeper.Open(list, text)
	if !ok || len(place) != 8 {
		return 0, false
	}
	n = int64(binary.BigEndian.Uint64(place))
	return n, n > 0
}

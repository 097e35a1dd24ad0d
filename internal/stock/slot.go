package stock

import (
	"strconv"
	"sync"

	"stampede/internal/order"
)

// slots is how many slots a Redis Cluster has.
const slots = 16384

// NewOrderID makes the id of a new order of a product or bucket. On a Redis Cluster the order's state then lies in the
// slot of its product: where the product is, there is all that its orders need, and no other master can keep them from
// it.
func (s *Stock) NewOrderID(stockID order.StockID) order.OrderID {
	id := order.NewID()
	if s.rdb.IsCluster() {
		place(&id, slotOf(stockID.String()))
	}
	return id
}

// slotOf is the slot of a key, or of the hash tag in one (Redis Cluster specification, "Key distribution model").
func slotOf(tag string) uint16 { return crc16(0, tag) % slots }

// crc16 goes on with a CRC-16 over a text: that of XMODEM, which a Cluster uses.
func crc16[T string | []byte](crc uint16, text T) uint16 {
	for i := range len(text) {
		crc = crc<<8 ^ crcTable[byte(crc>>8)^text[i]]
	}
	return crc
}

var crcTable = func() (table [256]uint16) {
	const polynomial = 0x1021
	for i := range table {
		crc := uint16(i) << 8
		for range 8 {
			carry := crc&0x8000 != 0
			if crc <<= 1; carry {
				crc ^= polynomial
			}
		}
		table[i] = crc
	}
	return table
}()

// endDigits is how many digits at the end of an order's id say in which slot its state lies: of four there are not
// enough for all slots. 54 bits of the id stay random for each millisecond.
const endDigits = 5

// place changes the end of an id so that the key of its state lies in a slot. A checksum of this kind is linear: that
// of the whole is that of what is before the end, carried on over zeros, XOR that of the end alone.
func place(id *order.OrderID, slot uint16) {
	text := orderKey(*id)
	crc := crc16(crc16(0, text[:len(text)-endDigits]), make([]byte, endDigits))
	end := ends()[(crc^slot)%slots]
	id[13] = id[13]&0xf0 | byte(end>>16)
	id[14] = byte(end >> 8)
	id[15] = byte(end)
}

// ends has for each slot the digits whose checksum is that slot.
var ends = sync.OnceValue(func() *[slots]uint32 {
	var found [slots]uint32
	var known [slots]bool
	for left, n := slots, uint32(0); left > 0; n++ {
		text := strconv.AppendUint(nil, uint64(1<<(4*endDigits)|n), 16) // a 1 and the digits
		if slot := crc16(0, text[1:]) % slots; !known[slot] {
			found[slot], known[slot] = n, true
			left--
		}
	}
	return &found
})

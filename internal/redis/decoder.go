package redis

import (
	"fmt"
	"strconv"
)

// Decoder reads the values of a script's reply, and keeps the first error in Err.
type Decoder struct{ Err error }

// Int reads a whole number, which may be a text.
func (d *Decoder) Int(v any) int64 {
	switch v := v.(type) {
	case int64:
		return v
	case string:
		n, err := strconv.ParseInt(v, 10, 64)
		d.Check(err)
		return n
	}
	d.Unexpected(v)
	return 0
}

// Text reads a text.
func (d *Decoder) Text(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	d.Unexpected(v)
	return ""
}

// Check keeps an error, if it is the first one.
func (d *Decoder) Check(err error) {
	if d.Err == nil {
		d.Err = err
	}
}

// Unexpected keeps that a value is of another type than it should be.
func (d *Decoder) Unexpected(v any) { d.Check(fmt.Errorf("unexpected %T in a reply", v)) }

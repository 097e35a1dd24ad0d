package order

import (
	"fmt"
	"regexp"
	"time"
)

// timeForm is the form of RFC 3339, with capital letters. Package time takes more: hours of one digit, fractions after
// a comma, and offsets of any size (https://go.dev/issue/54580).
var timeForm = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

// ParseTime reads a time of RFC 3339 and nothing else. Leap seconds are not known.
func ParseTime(text string) (time.Time, error) {
	if !timeForm.MatchString(text) {
		return time.Time{}, fmt.Errorf("%.40q is not a time of RFC 3339, such as 2026-11-27T08:00:00Z", text)
	}
	return time.Parse(time.RFC3339, text)
}

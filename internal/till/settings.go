package till

import (
	"errors"
	"log/slog"
	"net/url"

	"stampede/internal/config"
	"stampede/internal/mysql"
	"stampede/internal/payment/providers"
)

// Settings are the variables of the environment that set up a till.
type Settings struct {
	providers *providers.Settings
	front     *string
}

// Declare declares the variables of a till.
func Declare(vars *config.Set) *Settings {
	return &Settings{
		providers: providers.Declare(vars),
		front: vars.Optional("FRONT",
			"origin of the shop as buyers and providers of payments reach it, such as https://shop.example; needed "+
				"with any provider", checkFront),
	}
}

// checkFront reports whether a text is an origin.
func checkFront(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.String() != u.Scheme+"://"+u.Host {
		return errors.New("it is not an origin such as https://shop.example")
	}
	return nil
}

// Till makes a till of what is set. In test mode it says so.
func (s *Settings) Till(db *mysql.DB) (*Till, error) {
	set, err := s.providers.Providers()
	if err != nil {
		return nil, err
	}
	if len(set.All) > 0 && *s.front == "" {
		return nil, errors.New("FRONT is missing: providers of payments are told where to send notices and buyers")
	}
	if set.TestMode {
		slog.Warn("payment: TEST MODE: payments count by which no money has moved")
	}
	return &Till{DB: db, Providers: set.All, Front: *s.front, TestMode: set.TestMode}, nil
}

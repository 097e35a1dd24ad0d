package account

import (
	"fmt"

	"stampede/internal/order"
)

// The actions of the staff log that concern users and bans. Who reads it may search for these words, so they stay as
// they are.
const (
	actBanAdd      = "ban.add"
	actBanLift     = "ban.lift"
	actUserRole    = "user.role"
	actUserDisable = "user.disable"
	actUserEnable  = "user.enable"
	actUserLogout  = "user.logout"
)

func aboutUser(id order.UserID) string { return fmt.Sprintf("user %d", id) }

// Package account keeps in MySQL who may use the shop: users with their roles, their sessions, and bans.
//
// Each exported method owns its transaction. Times go in and come out in UTC.
package account

import "stampede/internal/mysql"

// Accounts is the users, sessions and bans of one database. Its methods may be called concurrently.
type Accounts struct{ db *mysql.DB }

// New is the accounts in a database, whose schema is current.
func New(db *mysql.DB) *Accounts { return &Accounts{db} }

-- Who changed what: rows are only ever added, each in the transaction of its change.

-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS staff_log (
    id           BIGINT         NOT NULL AUTO_INCREMENT PRIMARY KEY,
    at           DATETIME(6)    NOT NULL,
    -- user:7, ctl:root or unknown.
    actor        VARBINARY(255) NOT NULL,
    action       VARBINARY(64)  NOT NULL,
    -- product 7, user 3, order <uuid> or address <range>.
    subject      VARBINARY(255) NOT NULL,
    -- JSON, or NULL where there is nothing to tell.
    before_value BLOB           NULL,
    after_value  BLOB           NULL,
    KEY staff_log_subject (subject, id),
    KEY staff_log_at (at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;

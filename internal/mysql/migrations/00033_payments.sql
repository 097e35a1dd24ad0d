-- Attempts to pay, what providers have told of them, and refunds.

-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS payments (
    -- The number that the provider knows the attempt by: 20 letters and digits, which sort by time.
    number     VARBINARY(20)  NOT NULL,
    provider   VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    method     VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    user_id    BIGINT         NOT NULL,
    -- What is paid: an order, or points; the other one is NULL.
    order_id   BINARY(16)     NULL,
    points     BIGINT         NULL,
    -- Minor units of the currency.
    amount     BIGINT         NOT NULL,
    currency   CHAR(3) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- What is bought, in words, as the provider shows it.
    item       VARCHAR(200)   NOT NULL,
    -- 'created', 'open', 'paid' or 'closed'.
    state      VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- The provider's number of the attempt, and of the payment, or NULL.
    reference  VARBINARY(255) NULL,
    payment_reference VARBINARY(255) NULL,
    -- What the provider keeps, as far as it says so.
    fee        BIGINT         NOT NULL,
    expires_at DATETIME(3)    NOT NULL,
    created_at DATETIME(6)    NOT NULL,
    paid_at    DATETIME(6)    NULL,
    -- Since when we try to take money that the buyer has approved, or NULL.
    captured_at DATETIME(6)   NULL,
    -- When the provider is asked again, by whoever moves this time first; NULL if there is nothing to ask.
    next_at    DATETIME(3)    NULL,
    tries      INT            NOT NULL,
    PRIMARY KEY (number),
    KEY payments_order (order_id),
    KEY payments_user (user_id, created_at),
    KEY payments_next (provider, next_at),
    KEY payments_paid (paid_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;

-- What providers have told, each thing once. Rows are only added.
CREATE TABLE IF NOT EXISTS payment_events (
    provider    VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- The number of the attempt as the provider says it, which may be none of ours.
    number      VARBINARY(64)  NOT NULL,
    -- What has happened, as internal/payment has it. A payment that completes nothing has the reason before it.
    kind        VARBINARY(32)  NOT NULL,
    -- What tells two things of one kind apart; empty where an attempt has one only.
    event_key   VARBINARY(128) NOT NULL,
    -- 'notice', 'query', 'capture' or 'close': how we learned of it.
    source      VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    received_at DATETIME(6)    NOT NULL,
    -- The notice as it came, or what a query has answered.
    body        MEDIUMBLOB     NOT NULL,
    PRIMARY KEY (provider, number, kind, event_key)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;

CREATE TABLE IF NOT EXISTS refunds (
    -- The number that the provider knows the refund by. Money that completes nothing goes back under its attempt's.
    number     VARBINARY(32)  NOT NULL,
    -- The attempt whose money goes back, and its provider; NULL and empty if points do.
    attempt    VARBINARY(20)  NULL,
    provider   VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    order_id   BINARY(16)     NULL,
    -- Minor units of the currency, or points, whose currency is 'PTS'.
    amount     BIGINT         NOT NULL,
    currency   CHAR(3) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- 'due', 'manual' or 'done'.
    state      VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- 'late', 'second', 'mismatch' or 'staff'.
    reason     VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- Why, in words: of staff, or what the provider has said.
    note       VARCHAR(255)   NOT NULL,
    -- Who wanted it, and who has made it by hand; empty if nobody had to.
    actor      VARBINARY(255) NOT NULL,
    done_by    VARBINARY(255) NOT NULL,
    created_at DATETIME(6)    NOT NULL,
    done_at    DATETIME(6)    NULL,
    -- As in payments.
    next_at    DATETIME(3)    NULL,
    tries      INT            NOT NULL,
    PRIMARY KEY (number),
    KEY refunds_attempt (attempt),
    KEY refunds_order (order_id),
    KEY refunds_next (provider, next_at),
    KEY refunds_state (state, created_at),
    KEY refunds_done (done_at),
    KEY refunds_reason (reason, created_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;

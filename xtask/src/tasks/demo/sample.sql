-- A small mail-order business, so that the demonstration has something to lose.
-- Statements end with ;; since bodies hold semicolons.
SET SESSION cte_max_recursion_depth = 1000000;;
CREATE DATABASE shop CHARACTER SET utf8mb4;;
CREATE DATABASE crm CHARACTER SET utf8mb4;;
CREATE DATABASE archive CHARACTER SET latin1;;

CREATE TABLE shop.customers (
  id INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  name VARCHAR(80) NOT NULL,
  email VARCHAR(120) NOT NULL UNIQUE,
  profile JSON,
  balance DECIMAL(12,2) NOT NULL DEFAULT 0,
  city VARCHAR(40) AS (JSON_UNQUOTE(profile->'$.city')) VIRTUAL,
  created TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  KEY (city)
);;
INSERT INTO shop.customers (name, email, profile, balance)
  WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 20000)
  SELECT CONCAT(ELT(1 + n % 7, 'Zoë', '李雷', 'Ada 🚀', 'Møller', 'O''Neil', 'Śląsk', 'محمد'), ' ', n),
         CONCAT('customer', n, '@example.com'),
         JSON_OBJECT('city', ELT(1 + n % 5, 'Berlin', 'Zürich', '北京', 'Lagos', 'Lima'), 'likes', JSON_ARRAY(n % 11, 'tea ☕'), 'score', n / 7),
         (n * 37 % 100000) / 100
  FROM r;;

CREATE TABLE shop.products (
  id INT UNSIGNED NOT NULL PRIMARY KEY,
  sku CHAR(12) NOT NULL UNIQUE,
  title VARCHAR(100) NOT NULL,
  weight FLOAT, volume DOUBLE, flags BIT(12), tags SET('new','sale','fragile'),
  picture MEDIUMBLOB,
  FULLTEXT KEY (title)
);;
INSERT INTO shop.products
  WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 2000)
  SELECT n, CONCAT('SKU-', LPAD(n, 8, '0')), CONCAT(ELT(1 + n % 4, 'Lamp', 'Chair', 'Tea pot', 'Bücherregal'), ' no. ', n),
         n / 3, n / 7e10, n % 4096, ELT(1 + n % 4, 'new', 'new,sale', '', 'fragile'),
         REPEAT(UNHEX(SHA2(n, 256)), 1 + n % 200)
  FROM r;;

CREATE TABLE shop.orders (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  customer INT UNSIGNED NOT NULL,
  product INT UNSIGNED NOT NULL,
  quantity SMALLINT UNSIGNED NOT NULL,
  price DECIMAL(10,2) NOT NULL,
  total DECIMAL(14,2) AS (quantity * price) STORED,
  placed DATETIME(6) NOT NULL,
  state ENUM('new','paid','sent','back') NOT NULL DEFAULT 'new',
  note VARCHAR(200),
  KEY (customer), KEY (product, placed),
  CONSTRAINT who FOREIGN KEY (customer) REFERENCES shop.customers (id),
  CONSTRAINT what FOREIGN KEY (product) REFERENCES shop.products (id),
  CONSTRAINT some CHECK (quantity > 0)
);;
INSERT INTO shop.orders (customer, product, quantity, price, placed, state, note)
  WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 200000)
  SELECT 1 + n * 7919 % 20000, 1 + n * 104729 % 2000, 1 + n % 9, (n * 31 % 99900) / 100 + 1,
         TIMESTAMP('2024-01-01') + INTERVAL n * 317 SECOND + INTERVAL n % 1000000 MICROSECOND,
         ELT(1 + n % 4, 'new', 'paid', 'sent', 'back'), IF(n % 5 = 0, CONCAT('leave at the door 🚪 ', n), NULL)
  FROM r;;

CREATE TABLE shop.events (
  at DATETIME(3) NOT NULL, kind VARCHAR(10) NOT NULL, payload JSON
) PARTITION BY RANGE (YEAR(at)) (
  PARTITION p2024 VALUES LESS THAN (2025), PARTITION p2025 VALUES LESS THAN (2026), PARTITION pnow VALUES LESS THAN MAXVALUE
);;
INSERT INTO shop.events
  WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 100000)
  SELECT TIMESTAMP('2024-01-01') + INTERVAL n * 900 SECOND, ELT(1 + n % 3, 'view', 'click', 'buy'), JSON_OBJECT('n', n, 'x', SQRT(n)) FROM r;;

CREATE TABLE crm.notes (id CHAR(36) NOT NULL DEFAULT (UUID()) PRIMARY KEY, customer INT UNSIGNED, body TEXT, secret INT INVISIBLE DEFAULT 7);;
INSERT INTO crm.notes (id, customer, body)
  WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5000)
  SELECT CONCAT(LPAD(HEX(n * 2654435761 % 4294967296), 8, '0'), '-0000-4000-8000-', LPAD(HEX(n), 12, '0')), n, REPEAT(CONCAT('Called, said “later”. ', n, '\n'), 1 + n % 9) FROM r;;
CREATE TABLE archive.`old orders, 1998` (id INT PRIMARY KEY, remark VARCHAR(50) CHARACTER SET latin1, sold DATE);;
INSERT INTO archive.`old orders, 1998` VALUES (1, 'Gruß aus Köln', '1998-02-28'), (2, NULL, NULL);;

CREATE VIEW shop.open_orders AS SELECT o.id, c.name, o.total FROM shop.orders o JOIN shop.customers c ON c.id = o.customer WHERE o.state = 'new';;
CREATE VIEW crm.best AS SELECT name, SUM(total) AS worth FROM shop.open_orders GROUP BY name HAVING worth > 1000;;
CREATE FUNCTION shop.vat(net DECIMAL(14,2)) RETURNS DECIMAL(14,2) DETERMINISTIC RETURN net * 0.19;;
CREATE PROCEDURE shop.close_order(IN which BIGINT) BEGIN UPDATE shop.orders SET state = 'sent' WHERE id = which; SELECT ROW_COUNT() AS changed; END;;
CREATE TRIGGER shop.order_paid AFTER UPDATE ON shop.orders FOR EACH ROW BEGIN IF NEW.state = 'paid' AND OLD.state <> 'paid' THEN UPDATE shop.customers SET balance = balance - NEW.total WHERE id = NEW.customer; END IF; END;;
CREATE EVENT crm.tidy ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 03:00:00' DO DELETE FROM crm.notes WHERE body IS NULL;;

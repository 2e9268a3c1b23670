-- The databases that the guide backs up. Statements end with ;; and suit both flavors.
CREATE DATABASE shop CHARACTER SET utf8mb4;;
CREATE TABLE shop.customers (id INT PRIMARY KEY, name VARCHAR(50) NOT NULL, joined DATE);;
INSERT INTO shop.customers VALUES (1, 'Ada', '2024-02-29'), (2, 'Björk 😀', NULL), (3, '', '1999-12-31');;
CREATE TABLE shop.orders (
  id INT AUTO_INCREMENT PRIMARY KEY, customer INT NOT NULL, total DECIMAL(10,2), KEY (customer),
  FOREIGN KEY (customer) REFERENCES shop.customers (id)
);;
INSERT INTO shop.orders (customer, total) VALUES (1, 9.99), (1, 120), (2, 35.5), (3, 0.01);;
CREATE TABLE shop.sessions (id CHAR(8) PRIMARY KEY, customer INT);;
INSERT INTO shop.sessions VALUES ('00c0ffee', 1);;
CREATE VIEW shop.totals AS SELECT customer, SUM(total) AS total FROM shop.orders GROUP BY customer;;
CREATE FUNCTION shop.vat (net DECIMAL(14,2)) RETURNS DECIMAL(14,2) DETERMINISTIC RETURN net * 0.19;;
CREATE TRIGGER shop.seen BEFORE INSERT ON shop.sessions FOR EACH ROW SET NEW.id = LOWER(NEW.id);;
CREATE EVENT shop.tidy ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 03:00:00' DO DELETE FROM shop.sessions;;
CREATE DATABASE crm;;
CREATE TABLE crm.notes (id INT PRIMARY KEY, body TEXT);;
INSERT INTO crm.notes VALUES (1, 'Called.'), (2, 'Called again.');;

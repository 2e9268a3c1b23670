-- Schemas as applications make them: a rental shop, a blog, a wiki, a forge. Written for this test.
SET SESSION sql_mode = '', foreign_key_checks = 0;;
CREATE DATABASE rental CHARACTER SET utf8mb4;;
USE rental;;
CREATE TABLE actor (
  actor_id SMALLINT UNSIGNED NOT NULL AUTO_INCREMENT, first_name VARCHAR(45) NOT NULL, last_name VARCHAR(45) NOT NULL,
  last_update TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
  PRIMARY KEY (actor_id), KEY idx_actor_last_name (last_name)) ENGINE=InnoDB;;
CREATE TABLE address (
  address_id SMALLINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, address VARCHAR(50) NOT NULL, address2 VARCHAR(50) DEFAULT NULL,
  place GEOMETRY NOT NULL, SPATIAL KEY idx_place (place)) ENGINE=InnoDB;;
CREATE TABLE film (
  film_id SMALLINT UNSIGNED NOT NULL AUTO_INCREMENT, title VARCHAR(128) NOT NULL, description TEXT DEFAULT NULL,
  release_year YEAR DEFAULT NULL, rental_rate DECIMAL(4,2) NOT NULL DEFAULT 4.99,
  rating ENUM('G','PG','PG-13','R','NC-17') DEFAULT 'G',
  special_features SET('Trailers','Commentaries','Deleted Scenes','Behind the Scenes') DEFAULT NULL,
  PRIMARY KEY (film_id), KEY idx_title (title), FULLTEXT KEY idx_text (title, description)) ENGINE=InnoDB;;
CREATE TABLE film_actor (
  actor_id SMALLINT UNSIGNED NOT NULL, film_id SMALLINT UNSIGNED NOT NULL, PRIMARY KEY (actor_id, film_id), KEY idx_film (film_id),
  CONSTRAINT fk_actor FOREIGN KEY (actor_id) REFERENCES actor (actor_id) ON DELETE RESTRICT ON UPDATE CASCADE,
  CONSTRAINT fk_film FOREIGN KEY (film_id) REFERENCES film (film_id) ON DELETE RESTRICT ON UPDATE CASCADE) ENGINE=InnoDB;;
CREATE TABLE film_text (film_id SMALLINT UNSIGNED NOT NULL PRIMARY KEY, title VARCHAR(255) NOT NULL) ENGINE=InnoDB;;
CREATE TRIGGER ins_film AFTER INSERT ON film FOR EACH ROW BEGIN
  -- keeps the copy
  INSERT INTO film_text (film_id, title) VALUES (new.film_id, new.title);
END;;
CREATE TRIGGER upd_film AFTER UPDATE ON film FOR EACH ROW BEGIN
  IF (old.title != new.title) THEN UPDATE film_text SET title = new.title WHERE film_id = old.film_id; END IF;
END;;
CREATE FUNCTION in_stock (p_id INT) RETURNS BOOLEAN READS SQL DATA
BEGIN
  DECLARE v INT; /* counts */
  SELECT COUNT(*) INTO v FROM film WHERE film_id = p_id;
  RETURN v > 0;
END;;
CREATE PROCEDURE rewards (IN least TINYINT UNSIGNED, OUT n INT) COMMENT 'it''s; for ''them'''
BEGIN
  proc: BEGIN
    IF least = 0 THEN SELECT 'must be > 0'; LEAVE proc; END IF;
    SELECT COUNT(*) INTO n FROM actor;
  END;
END;;
CREATE DEFINER = CURRENT_USER SQL SECURITY INVOKER VIEW actor_info AS
  SELECT a.actor_id, a.first_name, GROUP_CONCAT(DISTINCT CONCAT(f.rating, ': ', f.title) ORDER BY f.title SEPARATOR '; ') AS films
  FROM actor a LEFT JOIN film_actor fa ON a.actor_id = fa.actor_id LEFT JOIN film f ON fa.film_id = f.film_id
  GROUP BY a.actor_id, a.first_name;;
CREATE VIEW a_list AS SELECT actor_id, films FROM actor_info WHERE films IS NOT NULL;;
INSERT INTO actor (first_name, last_name, last_update) VALUES ('PENELOPE', 'O''HARA', '2006-02-15 04:34:33'), ('JOSÉ', 'Ångström', '2006-02-15 04:34:33');;
INSERT INTO address (address, place) VALUES ('47 MySakila Drive', ST_GeomFromText('POINT(153.1408538 -27.6333361)')), ('', ST_GeomFromText('POINT(0 0)'));;
INSERT INTO film (title, description, release_year, rating, special_features) VALUES
  ('ACADEMY DINOSAUR', 'A Epic Drama of a Feminist And a Mad Scientist', 2006, 'PG', 'Deleted Scenes,Behind the Scenes'),
  ('ACE \\ GOLDFINGER', NULL, 0, 'NC-17', ''), ('', '', NULL, NULL, NULL);;
INSERT INTO film_actor VALUES (1, 1), (2, 1), (2, 2);;
CREATE DATABASE blog CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci;;
USE blog;;
CREATE TABLE bl_posts (
  ID bigint(20) unsigned NOT NULL AUTO_INCREMENT, post_author bigint(20) unsigned NOT NULL DEFAULT '0',
  post_date datetime NOT NULL DEFAULT '0000-00-00 00:00:00', post_content longtext NOT NULL, post_name varchar(200) NOT NULL DEFAULT '',
  menu_order int(11) NOT NULL DEFAULT '0', PRIMARY KEY (ID), KEY post_name (post_name(191)), KEY type_date (menu_order, post_date, ID));;
CREATE TABLE bl_options (
  option_id bigint(20) unsigned NOT NULL AUTO_INCREMENT, option_name varchar(191) NOT NULL DEFAULT '', option_value longtext NOT NULL,
  autoload varchar(20) NOT NULL DEFAULT 'yes', PRIMARY KEY (option_id), UNIQUE KEY option_name (option_name));;
CREATE TABLE bl_term_relationships (
  object_id bigint(20) unsigned NOT NULL DEFAULT 0, term_taxonomy_id bigint(20) unsigned NOT NULL DEFAULT 0, term_order int(11) NOT NULL DEFAULT 0,
  PRIMARY KEY (object_id, term_taxonomy_id), KEY term_taxonomy_id (term_taxonomy_id));;
INSERT INTO bl_posts (post_date, post_content, post_name) VALUES ('0000-00-00 00:00:00', '<p>Grüße 🎉 &amp; "quotes" ''x''\r\n\t</p>', '%e4%bd%a0'), ('2026-01-02 03:04:05', '', 'Z');;
INSERT INTO bl_options (option_name, option_value) VALUES ('a', 'a:2:{s:4:"name";s:3:"x\0y";i:0;b:1;}'), ('Öffnung', '\\N'), ('b', 'NULL');;
INSERT INTO bl_term_relationships VALUES (1, 2, 0), (1, 3, 0), (18446744073709551615, 1, -5);;
CREATE DATABASE wiki CHARACTER SET binary;;
USE wiki;;
CREATE TABLE page (
  page_id INT UNSIGNED AUTO_INCREMENT NOT NULL, page_namespace INT NOT NULL, page_title VARBINARY(255) NOT NULL,
  page_random DOUBLE PRECISION NOT NULL, page_touched BINARY(14) NOT NULL, page_links_updated VARBINARY(14) DEFAULT NULL,
  UNIQUE INDEX name_title (page_namespace, page_title), INDEX page_random (page_random), PRIMARY KEY (page_id));;
CREATE TABLE objectcache (keyname VARBINARY(255) DEFAULT '' NOT NULL, value MEDIUMBLOB DEFAULT NULL, exptime BINARY(14) NOT NULL, PRIMARY KEY (keyname));;
CREATE TABLE links (el_id INT UNSIGNED AUTO_INCREMENT NOT NULL, el_from INT UNSIGNED DEFAULT 0 NOT NULL, el_path BLOB DEFAULT NULL, INDEX el_from (el_from), INDEX p (el_path(60), el_id), PRIMARY KEY (el_id));;
CREATE TABLE searchindex (si_page INT UNSIGNED NOT NULL PRIMARY KEY, si_title VARCHAR(255) CHARACTER SET utf8mb4 DEFAULT '' NOT NULL, si_text MEDIUMTEXT CHARACTER SET utf8mb4 NOT NULL,
  FULLTEXT INDEX si_title (si_title), FULLTEXT INDEX si_text (si_text)) ENGINE=MyISAM;;
INSERT INTO page (page_namespace, page_title, page_random, page_touched) VALUES (0, 'Main_Page', 0.1234567890123456, '20260102030405'), (0, x'ff00275c', 1e-300, x'00'), (-1, '', 0, '');;
INSERT INTO objectcache VALUES ('k', x'4bcaccacaa4a2c4e6d00', '99991231235959'), ('', NULL, '0');;
INSERT INTO links (el_path) VALUES (x'2f'), (NULL), ('');;
INSERT INTO searchindex VALUES (1, 'main page', 'welcome to the wiki u8c3bc');;
CREATE DATABASE forge CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;;
USE forge;;
CREATE TABLE namespaces (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, path VARCHAR(255) NOT NULL, parent_id BIGINT, traversal VARCHAR(600) AS (CONCAT('/', path, '/')) STORED,
  settings JSON, created_at DATETIME(6) NOT NULL, UNIQUE KEY u (path), KEY t (traversal(100)), CONSTRAINT fk_parent FOREIGN KEY (parent_id) REFERENCES namespaces (id) ON DELETE CASCADE);;
CREATE TABLE projects (id BIGINT NOT NULL AUTO_INCREMENT, namespace_id BIGINT NOT NULL, name VARCHAR(255), star_count INT NOT NULL DEFAULT 0, archived TINYINT(1) NOT NULL DEFAULT 0,
  repository_size BIGINT UNSIGNED, PRIMARY KEY (id), UNIQUE KEY n (namespace_id, name), CONSTRAINT fk_ns FOREIGN KEY (namespace_id) REFERENCES namespaces (id), CONSTRAINT stars CHECK (star_count >= 0));;
CREATE TABLE merge_requests (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, source_id BIGINT, target_id BIGINT NOT NULL, title TEXT, sha BINARY(20), merged_at DATETIME(6),
  CONSTRAINT fk_s FOREIGN KEY (source_id) REFERENCES projects (id) ON DELETE SET NULL, CONSTRAINT fk_t FOREIGN KEY (target_id) REFERENCES projects (id) ON DELETE CASCADE);;
CREATE TABLE events (id BIGINT NOT NULL, created DATE NOT NULL, uuid CHAR(36) CHARACTER SET ascii NOT NULL, payload LONGTEXT, PRIMARY KEY (id, created), KEY u (uuid))
  PARTITION BY RANGE (YEAR(created)) (PARTITION p2024 VALUES LESS THAN (2025), PARTITION p2025 VALUES LESS THAN (2026), PARTITION rest VALUES LESS THAN MAXVALUE);;
CREATE TABLE locks (resource VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL, owner BINARY(16) NOT NULL, PRIMARY KEY (resource, owner));;
INSERT INTO namespaces (path, parent_id, settings, created_at) VALUES ('top', NULL, '{"a": [1, 2.5, "é", null]}', '2026-01-02 03:04:05.678901'), ('top/sub', 1, NULL, '1000-01-01 00:00:00');;
INSERT INTO projects (namespace_id, name, repository_size) VALUES (1, 'p', 18446744073709551615), (2, NULL, NULL), (2, NULL, 0);;
INSERT INTO merge_requests (source_id, target_id, title, sha) VALUES (NULL, 1, 'Fix ''it''', x'00112233445566778899aabbccddeeff00112233'), (2, 2, '', NULL);;
INSERT INTO events VALUES (1, '2024-05-06', '6ccd780c-baba-1026-9564-5b8c656024db', '{}'), (2, '2025-01-01', '6ccd780c-baba-1026-9564-5b8c656024dc', NULL), (3, '2030-01-01', '', '🎉');;
INSERT INTO locks VALUES ('a', x'00'), ('B', x'ff'), ('ä', x'01'), ('b2', x'02');;
CREATE EVENT tidy ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01 00:00:00' ON COMPLETION PRESERVE DISABLE DO DELETE FROM events WHERE created < '2000-01-01';;
SET SESSION foreign_key_checks = 1;;

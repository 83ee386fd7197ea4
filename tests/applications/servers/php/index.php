<?php
// PHP with sessions in files of this instance alone; the id changes at login.
$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
$instance = getenv('INSTANCE');
if ($path === '/health') {
    echo 'ok';
    exit;
}
session_start();
if ($path === '/login' && isset($_POST['user'])) {
    session_regenerate_id(true);
    $_SESSION['user'] = $_POST['user'];
    $_SESSION['count'] = 0;
} elseif (isset($_SESSION['user'])) {
    $_SESSION['count'] += 1;
}
header('Content-Type: application/json');
echo json_encode(['instance' => $instance, 'user' => $_SESSION['user'] ?? null, 'count' => $_SESSION['count'] ?? null]);

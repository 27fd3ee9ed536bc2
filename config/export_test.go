package config

// LKJWTVariables are the variables of lk-jwt-service.
var LKJWTVariables = lkJWTVariables

//! Presigned WebSocket URLs: AWS Signature Version 4 in the query, service `iotdevicegateway`.

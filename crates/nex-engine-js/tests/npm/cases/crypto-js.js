import CryptoJS from "crypto-js";

export default () => [CryptoJS.SHA256("a").toString(), CryptoJS.HmacSHA512("a", "k").toString(CryptoJS.enc.Base64), CryptoJS.AES.decrypt(CryptoJS.AES.encrypt("text", "pass").toString(), "pass").toString(CryptoJS.enc.Utf8), CryptoJS.MD5("x").toString()];

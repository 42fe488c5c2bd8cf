/// A public key whose private half was thrown away.
enum OutsideKeys {
    static let rsaPublicPEM = """
        -----BEGIN PUBLIC KEY-----
        MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA1wlAATwh7KGsvSbfmzO+
        kAVWo3vDT2GqXlGT8PQGfXGPxa+fJM2eHKETmMrrlKbnJDjNaZkvsWGq0WDQ6iOd
        m0ueepaz0xgUluYSeG46E8/FUtxeFE5JJlAQQAjsos16iAxdaAy3F/wuU8lTdTQx
        UQemaMXS/iXNsSVytzKYM4fFaVVjSrzNoncu/mRQUrm9opt50Rk756cv4kkDGl7Y
        wx2b75rm0ii+mmcMm/VP7k504tRHwX5guFIfKDA8FENoA20lAVCOAyZiLG7M+txo
        Jr8XwtM04UQ245BccQ5rfKSrvqRYKdjVYGJFRpv34+2wiZodVsqL4jy2DbO9frGJ
        MwIDAQAB
        -----END PUBLIC KEY-----
        """
}

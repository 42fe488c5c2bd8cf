/// A signature that the openssl program made over "the message"; its private key was thrown away.
enum RSAVector {
    static let publicPEM = """
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
    static let modulus =
        "d70940013c21eca1acbd26df9b33be900556a37bc34f61aa5e5193f0f4067d718fc5af9f24cd9e1ca11398caeb94a6e7"
        + "2438cd69992fb161aad160d0ea239d9b4b9e7a96b3d3181496e612786e3a13cfc552dc5e144e492650104008eca2cd7a"
        + "880c5d680cb717fc2e53c9537534315107a668c5d2fe25cdb12572b732983387c56955634abccda2772efe645052b9bd"
        + "a29b79d1193be7a72fe249031a5ed8c31d9bef9ae6d228be9a670c9bf54fee4e74e2d447c17e60b8521f28303c144368"
        + "036d2501508e0326622c6eccfadc6826bf17c2d334e14436e3905c710e6b7ca4abbea45829d8d5606245469bf7e3edb0"
        + "899a1d56ca8be23cb60db3bd7eb18933"
    static let signature =
        "99119c6ad16e2cba33e7afcd6e372cad24dd0f6cd54fc60e57e366848647acd1a894ca74373f662a55f493eb4c563b9a"
        + "ff955b3da011d5fa3f41a297be3960a7ae6031c1de8ef282a48cf7d52ba1c8f3734d33351f0eff54f6f7ce37224a1ee0"
        + "009e8bdacd05daa81239c1b8f734c8ca9294ebc86920845e6ef234497cd2bb65992731eb9c34db2d38ef2e1ad0e1d7af"
        + "254b64b623f86fbbd5b46c8cf567f8cf2804758daed1d0fc2d780381af08aa1cc8936f6ad4ad3cc8eab584a035c17a2f"
        + "a5d24d0b5ddd833339f2ad40c84b6c7ad8fa236ec05e85ca4618a1fd3ddb6fd810528d029281cb5de2329cb3ef55ffb7"
        + "0bc320d5cf1431cab3c743af5a381a23"
}

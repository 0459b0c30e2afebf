using System.Security.Cryptography;
using System.Text;

namespace Vmm.CommandLine.Seeds;

/// <summary>
/// Hashes of passwords as a Linux guest keeps them: <c>$6$SALT$HASH</c>, SHA-512 in 5000 rounds ("Unix crypt using SHA-256 and SHA-512",
/// U. Drepper).
/// </summary>
internal static class PasswordHash
{
    private const string Digits = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    private const int Rounds = 5000, HashBytes = 64, SaltDigits = 16;

    /// <summary>The hash of a password with a salt of its own.</summary>
    internal static string Of(string password) => Of(password, RandomNumberGenerator.GetString(Digits, SaltDigits));

    /// <summary>The hash with a given salt of up to 16 characters.</summary>
    internal static string Of(string password, string salt)
    {
        byte[] word = Encoding.UTF8.GetBytes(password), grain = Encoding.ASCII.GetBytes(salt);
        byte[] sum = Begin(word, grain), p = Repeated(word, word.Length, word.Length), s = Repeated(grain, 16 + sum[0], grain.Length);
        for (int round = 0; round < Rounds; round++)
        {
            using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA512);
            bool odd = (round & 1) != 0;
            hash.AppendData(odd ? p : sum);
            hash.AppendData(round % 3 != 0 ? s : []);
            hash.AppendData(round % 7 != 0 ? p : []);
            hash.AppendData(odd ? sum : p);
            sum = hash.GetHashAndReset();
        }

        return $"$6${salt}${Text(sum)}";
    }

    private static byte[] Begin(byte[] word, byte[] grain)
    {
        byte[] other = SHA512.HashData([.. word, .. grain, .. word]);
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA512);
        hash.AppendData(word);
        hash.AppendData(grain);
        for (int left = word.Length; left > 0; left -= HashBytes)
        {
            hash.AppendData(other.AsSpan(0, Math.Min(left, HashBytes)));
        }

        for (int bits = word.Length; bits > 0; bits >>= 1)
        {
            hash.AppendData((bits & 1) != 0 ? other : word);
        }

        return hash.GetHashAndReset();
    }

    // The hash of so many copies, as often as it takes to have so many bytes.
    private static byte[] Repeated(byte[] bytes, int copies, int length)
    {
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA512);
        for (int i = 0; i < copies; i++)
        {
            hash.AppendData(bytes);
        }

        byte[] sum = hash.GetHashAndReset(), all = new byte[length];
        for (int i = 0; i < length; i++)
        {
            all[i] = sum[i % HashBytes];
        }

        return all;
    }

    // Three bytes are four digits, the least first; which three follows a pattern of the format.
    private static string Text(byte[] sum)
    {
        StringBuilder text = new();
        (int a, int b, int c) = (0, 21, 42);
        for (int i = 0; i < 21; i++)
        {
            Add(text, (sum[a] << 16) | (sum[b] << 8) | sum[c], 4);
            (a, b, c) = (b + 1, c + 1, a + 1);
        }

        Add(text, sum[63], 2);
        return text.ToString();
    }

    private static void Add(StringBuilder text, int value, int digits)
    {
        for (; digits > 0; digits--, value >>= 6)
        {
            text.Append(Digits[value & 63]);
        }
    }
}

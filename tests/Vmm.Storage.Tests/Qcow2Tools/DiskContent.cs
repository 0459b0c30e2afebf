using System.Security.Cryptography;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Storage.Tests.Qcow2Tools;

/// <summary>What a disk reads as.</summary>
internal static class DiskContent
{
    /// <summary>A hash of the whole disk; a part that cannot be read counts as its error.</summary>
    internal static string Hash(string path, string format = "qcow2")
    {
        using ImageChain chain = ImageChain.Open(path, format);
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        byte[] block = new byte[4096];
        for (ulong at = 0; at < chain.Size; at += (uint)block.Length)
        {
            int take = (int)Math.Min((ulong)block.Length, chain.Size - at);
            try
            {
                chain.Read(block.AsSpan(0, take), at);
                hash.AppendData(block.AsSpan(0, take));
            }
            catch (BlockException e)
            {
                hash.AppendData(System.Text.Encoding.UTF8.GetBytes(e.Offset.ToString() ?? ""));
            }
        }

        return Convert.ToHexString(hash.GetHashAndReset());
    }
}

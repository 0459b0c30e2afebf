using System.Security.Cryptography;
using Microsoft.Win32.SafeHandles;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Vms;
using Vmm.Interop;
using Vmm.Storage;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Daemon.Images;

/// <summary>
/// Takes a file in: unpacks it where its name says so, looks once what it is, checks it and keeps it. The bytes are a stranger's; what they
/// come to is bounded by the free space. Whatever ends it, there is a whole image or nothing.
/// </summary>
/// <param name="library">Where images are kept.</param>
/// <param name="wish">What is wanted.</param>
/// <param name="file">The source, opened by the rule of storage folders.</param>
internal sealed class ImageImport(ImageLibrary library, ImageRequest wish, FileDescriptorHandle file)
{
    /// <summary>Stays free: the host and its VMs go on writing.</summary>
    internal const long Reserve = 256L << 20;

    private const int ChunkBytes = 1 << 20, HoleBytes = 64 << 10;
    private const double CopyPart = 0.9; // of the progress; the rest is the check
    private const int ErrnoNoSpace = 28;

    /// <summary>Imports.</summary>
    /// <exception cref="ApiException">The file is no image that can be taken, or does not fit.</exception>
    internal ImageInfo Run(Action<double> progress, CancellationToken cancellation)
    {
        try
        {
            return Take(progress, cancellation);
        }
        catch (Exception cause) when (cancellation.IsCancellationRequested && cause is not OperationCanceledException)
        {
            throw new OperationCanceledException(cause.Message, cause, cancellation); // a program that was cut off complains of its end
        }
        catch (Exception cause) when (cause is InvalidDataException or ZstdSharp.ZstdException)
        {
            throw new ApiException(
                422, "image-refused", "the file is no image that can be taken", $"{wish.Path} {cause.Message}", inner: cause);
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException or BlockException)
        {
            bool isFull = (cause.HResult & 0xFFFF) == ErrnoNoSpace || cause.InnerException is KernelException { Errno: Errno.ENOSPC };
            throw isFull ? NoSpace("its content does not fit") : new ApiException(
                507, "image-failed", "the image could not be kept", $"{wish.Name}: {cause.Message}", inner: cause);
        }
        finally
        {
            library.Abandon(wish.Name);
        }
    }

    private ImageInfo Take(Action<double> progress, CancellationToken cancellation)
    {
        BlockFileInfo facts = BlockFile.Inspect(file);
        using SourceStream source = new(file, facts.Size, cancellation);
        string path = library.Begin(wish.Name), format, sha256;
        if (Unpacking.OfName(wish.Path) is { } packing)
        {
            using Stream content = Unpacking.Open(packing, source);
            (format, sha256) = Copy(content, path, isPacked: true, () => progress(CopyPart * source.Progress), cancellation);
        }
        else
        {
            (format, sha256) = Copy(source, path, isPacked: false, () => progress(CopyPart * source.Progress), cancellation);
        }

        source.ReadToEnd();
        ulong size = ImageContent.Check(
            path, format, new ToolProgress(part => progress(CopyPart + ((0.99 - CopyPart) * part)), cancellation));
        ImageInfo image = new(wish.Name, format, (long)size, new FileInfo(path).Length, sha256, Path.GetFileName(wish.Path), source.Sha256,
            DateTimeOffset.UtcNow, library.PathOf(wish.Name), []);
        cancellation.ThrowIfCancellationRequested();
        library.Complete(image);
        return image;
    }

    private (string Format, string Sha256) Copy(
        Stream content, string path, bool isPacked, Action progress, CancellationToken cancellation)
    {
        using SafeFileHandle target = File.OpenHandle(path, FileMode.CreateNew, FileAccess.Write, FileShare.None);
        File.SetUnixFileMode(target, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        byte[] chunk = new byte[ChunkBytes];
        string? format = null;
        long at = 0, room = library.FreeBytes - Reserve, written = 0;
        for (int read = content.ReadAtLeast(chunk, ChunkBytes, throwOnEndOfStream: false); read > 0;
            read = content.ReadAtLeast(chunk, ChunkBytes, throwOnEndOfStream: false))
        {
            cancellation.ThrowIfCancellationRequested();
            format ??= FormatOf(chunk.AsSpan(0, Math.Min(read, ImageContent.StartBytes)));
            hash.AppendData(chunk, 0, read);
            written += WriteData(target, chunk.AsSpan(0, read), at);
            at += read;
            // Of packed zeros nothing is written, and a few bytes can unpack to them for years.
            if (written > room || (isPacked && at > room) || library.FreeBytes < Reserve / 2)
            {
                throw NoSpace(isPacked ? $"it unpacks to more than the {room >> 20} MiB that may be used" : "its content does not fit");
            }

            progress();
        }

        RandomAccess.SetLength(target, at);
        RandomAccess.FlushToDisk(target);
        return (format ?? throw new InvalidDataException("is empty"), Convert.ToHexStringLower(hash.GetHashAndReset()));
    }

    private string FormatOf(ReadOnlySpan<byte> start) => wish.Format ?? ImageContent.Probe(start);

    // What is zeros stays a hole. The answer is the bytes that take space.
    private static long WriteData(SafeFileHandle target, ReadOnlySpan<byte> data, long at)
    {
        long written = 0;
        for (int done = 0; done < data.Length; done += HoleBytes)
        {
            ReadOnlySpan<byte> part = data.Slice(done, Math.Min(HoleBytes, data.Length - done));
            if (part.ContainsAnyExcept((byte)0))
            {
                RandomAccess.Write(target, part, at + done);
                written += part.Length;
            }
        }

        return written;
    }

    private ApiException NoSpace(string why) => new(507, "no-space", "not enough space",
        $"{wish.Path}: {why}; the file system of images has {library.FreeBytes >> 20} MiB free, of which {Reserve >> 20} MiB stay free");
}

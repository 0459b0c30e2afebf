using Vmm.Interop;
using Vmm.Storage;
using Vmm.Storage.Changes;

namespace Vmm.Fuzz;

/// <summary>
/// The file of a change log, by the first byte: any bytes, or a sound file over which others were written, as a worker can that was taken
/// over. It is refused with one reason, or read to ranges of the disk, in their order.
/// </summary>
internal static class ChangesTarget
{
    internal static void Run(byte[] input)
    {
        string path = Path.Combine(
            Path.GetTempPath(), $"vmm-fuzz-changes-{Environment.ProcessId}-{Environment.CurrentManagedThreadId}.log");
        try
        {
            if (input.Length > 0 && input[0] % 2 == 1)
            {
                using ChangeLogFile sound = ChangeLogFile.Create(path, 5ul << 30, generation: 3);
                int at = input.Length > 3 ? ((input[1] << 8) | input[2]) : 0;
                BlockFile.WriteAt(sound.Descriptor, input.AsSpan(Math.Min(3, input.Length)), (ulong)at);
                Read(sound);
            }
            else
            {
                File.WriteAllBytes(path, input[Math.Min(1, input.Length)..]);
            }

            if (ChangeLogFile.TryOpen(path, out string problem, out ChangeUnknown reason) is { } file)
            {
                using (file)
                {
                    Read(file);
                    _ = file.Begin(new Guid(1, 2, 3, new byte[8]), bootTime: 5, new FileStamp(1, 2, 3, 4), file.DiskBytes);
                    file.End(new FileStamp(1, 2, 3, 4));
                    file.Cut();
                    Read(file);
                    file.Forget();
                }
            }
            else if (problem.Length is 0 or > 500 || reason == ChangeUnknown.None)
            {
                throw new InvalidOperationException($"refused with \"{problem}\", {reason}");
            }
        }
        catch (BlockException refused) when (refused.Message.Length is > 0 and < 500 && refused.Path == path)
        {
        }
        finally
        {
            File.Delete(path);
        }
    }

    private static void Read(ChangeLogFile file)
    {
        ulong end = 0;
        foreach (ChangeRange range in file.ReadPending().Ranges)
        {
            if (range.Length == 0 || range.Offset < end || range.Offset + range.Length > file.DiskBytes)
            {
                throw new InvalidOperationException($"{range} behind {end} of {file.DiskBytes}");
            }

            end = range.Offset + range.Length;
        }
    }
}

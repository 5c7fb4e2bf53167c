{-# LANGUAGE BangPatterns #-}

-- | Two-account transfers under GHC's @stm@.
--
-- Usage: transfer_ghc ACCOUNTS THREADS TRANSFERS-OF-EACH-THREAD +RTS ...; prints one line of JSON.
-- bench/peers/__init__.py says what all peers have in common, and which options of the run-time system it chose, why.
module Main (main) where

import Control.Concurrent (forkOn)
import Control.Concurrent.MVar
import Control.Concurrent.STM (TVar, atomically, newTVarIO, readTVar, readTVarIO, writeTVar)
import Control.Monad (forM, forM_, replicateM, replicateM_)
import Data.Array (Array, elems, listArray)
import Data.Array.Base (unsafeAt)
import Data.Array.Unboxed (UArray)
import qualified Data.Array.Unboxed as Unboxed
import Data.Bits (shiftR, (.&.))
import Data.List (foldl')
import Data.Word (Word32, Word64)
import GHC.Clock (getMonotonicTimeNSec)
import System.Environment (getArgs)
import System.Exit (die)
import System.Mem (performGC)
import Text.Read (readMaybe)

openingBalance, routeCount :: Int
openingBalance = 1000
routeCount = 65536

-- | Source and target of every transfer in turn.
type Routes = UArray Int Word32

drawRoutes :: Int -> Word64 -> Routes
drawRoutes accounts seed = Unboxed.listArray (0, 2 * routeCount - 1) (concat (go routeCount seed))
  where
    go :: Int -> Word64 -> [[Word32]]
    go 0 _ = []
    go left state = [source, target] : go (left - 1) afterBoth
      where
        (source, afterSource) = draw state
        (target, afterBoth) = drawUntil (/= source) afterSource
    drawUntil wanted state
      | wanted index = (index, next)
      | otherwise = drawUntil wanted next
      where
        (index, next) = draw state
    draw state = (fromIntegral ((next `shiftR` 33) `mod` fromIntegral accounts), next)
      where
        next = state * 6364136223846793005 + 1442695040888963407

-- | What is measured: one transaction per transfer, no thunk left in a variable.
drive :: Array Int (TVar Int) -> Routes -> Int -> IO ()
drive !balances !routes !transfers = go 0
  where
    go !n
      | n == transfers = pure ()
      | otherwise = do
          let !at = 2 * (n .&. (routeCount - 1))
              !source = unsafeAt balances (fromIntegral (unsafeAt routes at))
              !target = unsafeAt balances (fromIntegral (unsafeAt routes (at + 1)))
          atomically $ do
            !fromSource <- readTVar source
            !fromTarget <- readTVar target
            writeTVar source $! fromSource - 1
            writeTVar target $! fromTarget + 1
          go (n + 1)

-- | Each thread on a capability of its own. When it is ready it says so, and goes on when the gate opens.
work :: Array Int (TVar Int) -> Int -> Int -> MVar () -> Int -> IO (MVar (), MVar (Word64, Word64))
work balances accounts transfers gate number = do
  ready <- newEmptyMVar
  times <- newEmptyMVar
  _ <- forkOn number $ do
    let !routes = drawRoutes accounts (fromIntegral number + 1)
    putMVar ready ()
    readMVar gate
    !started <- getMonotonicTimeNSec
    drive balances routes transfers
    !ended <- getMonotonicTimeNSec
    putMVar times (started, ended)
  pure (ready, times)

main :: IO ()
main = do
  arguments <- getArgs
  (accounts, threads, transfers) <- case traverse readMaybe arguments of
    Just [accounts, threads, transfers]
      | accounts > 1 && threads > 0 && transfers >= 0 -> pure (accounts, threads, transfers)
    _ -> die "transfer_ghc: wants three numbers: accounts, threads, transfers of each thread"
  balances <- listArray (0, accounts - 1) <$> replicateM accounts (newTVarIO openingBalance)
  gate <- newEmptyMVar
  workers <- forM [0 .. threads - 1] (work balances accounts transfers gate)
  forM_ workers (takeMVar . fst)
  replicateM_ 2 performGC -- twice, until the variables are among the old: moving them is not the transfers' cost
  putMVar gate ()
  times <- forM workers (takeMVar . snd)
  final <- mapM readTVarIO (elems balances)
  let nanoseconds = maximum (map snd times) - minimum (map fst times)
      kept = foldl' (+) 0 final == accounts * openingBalance
      digest = foldl' (+) 0 (zipWith (*) [0 ..] (map fromIntegral final)) :: Word64
  putStrLn $
    concat
      [ "{\"system\": \"ghc\", \"accounts\": ", show accounts,
        ", \"threads\": ", show threads,
        ", \"transfers\": ", show (threads * transfers),
        ", \"seconds\": ", show (fromIntegral nanoseconds * 1e-9 :: Double),
        ", \"kept\": ", if kept then "true" else "false",
        ", \"digest\": ", show digest, "}"
      ]
